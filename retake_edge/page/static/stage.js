// The video: player, timeline, how far its reading is, and what was left out.

import { leftOut } from "./about.js";
import { call } from "./api.js";
import { el, show } from "./dom.js";
import { Player } from "./player.js";
import { shareOf } from "./shelf.js";
import { Timeline } from "./timeline.js";
import { clock, lasting, percent } from "./words.js";

const CANNOT = "Your browser cannot play this file, so pictures of it are shown.";

/** The part of the page about one video; handlers: onTime, onRead, onStop, onLost. */
export class Stage {
  constructor(handlers) {
    this.handlers = handlers;
    this.facts = null;
    this.player = new Player({
      note: CANNOT,
      onTime: (time) => { this.timeline?.at(time); handlers.onTime(time); },
      onFail: () => handlers.onLost(),
    });
    this.name = el("h1", { tabindex: "-1" });
    this.reading = el("div", { class: "reading" });
    this.line = el("div", { class: "line" });
    this.about = el("div", { class: "about" });
    this.player.video.addEventListener("loadedmetadata", () => this.#provisional());
    this.element = el("section", { class: "stage", "aria-label": "The video" },
      this.name, this.player.element, this.reading, this.line, this.about);
  }

  /** Show a video as the server tells of it. */
  showVideo(video) {
    this.video = video;
    this.name.textContent = video.name;
    if (video.facts && this.facts !== video.facts) {
      this.facts = video.facts;
      this.#draw(video.facts);
    }
    this.player.load(video.media, this.facts);
    show(this.about, video.facts && leftOut(video.facts));
    this.showReading(video.state, video.live);
  }

  /** Show how far the reading is. */
  showReading(state, live) {
    const { reading } = live, progress = reading?.progress;
    const isGoing = state === "reading";
    this.timeline?.readUntil(isGoing ? progress?.time_s ?? this.timeline.facts.start_s : null);
    if (state === "read") return show(this.reading);
    this.#morePictures(progress?.n_pictures ?? 0);
    const button = (words, act) => el("button", { type: "button", onclick: act }, words);
    if (!isGoing) {
      return show(this.reading,
        el("p", { class: state === "failed" ? "error" : "", role: state === "failed" ? "alert" : null },
          state === "failed" ? reading.error.message : "This video is not read yet by the model that runs here."),
        button(state === "failed" ? "Try again" : "Read it", () => this.handlers.onRead()));
    }
    const known = progress?.time_s !== undefined;
    const share = known ? shareOf(progress) : 0;
    const left = known && progress.left_s !== null ? `about ${lasting(progress.left_s)} left` : "";
    const words = known
      ? [`Being read: ${clock(progress.time_s)} of ${clock(progress.end_s)}`, left].filter(Boolean).join(", ")
      : progress ? "The model is made ready" : "Waits for its turn";
    if (!this.bar?.isConnected) {
      this.bar = el("progress", { max: "1", "aria-label": "Reading of the video" });
      this.words = el("p", {});
      show(this.reading, this.words, this.bar, button("Stop", () => this.handlers.onStop()));
    }
    this.words.textContent = words;
    if (known) this.bar.value = share; else this.bar.removeAttribute("value");
    this.bar.title = percent(share);
  }

  /** Show where an answer looked. */
  showTurn(turn) {
    this.timeline?.showTurn(turn);
    this.turn = turn;
  }

  /** Go to a time. */
  seek(time, play) {
    this.player.seek(time, { play });
  }

  /** Show pictures of what is read, as they come. */
  async #morePictures(n) {
    const known = this.timeline?.facts.pictures;
    if (this.facts || !known || known.length >= n || this.isLoading) return;
    this.isLoading = true;
    const timeline = this.timeline;
    const found = await call("GET", `/api/videos/${this.video.id}/pictures?after=${known.length}`).catch(() => null);
    this.isLoading = false;
    if (found && timeline === this.timeline && !this.facts) timeline.addPictures(found.pictures);
  }

  /** Before the video is read, its timeline has a length, and no more. */
  #provisional() {
    const { duration, videoWidth, videoHeight } = this.player.video;
    if (this.timeline || !Number.isFinite(duration)) return;
    this.#draw({
      start_s: 0, end_s: duration, shape: videoWidth ? [videoWidth, videoHeight] : [16, 9],
      times_s: [0], kept: null, pictures: [],
    });
    this.showReading(this.video.state, this.video.live);
  }

  #draw(facts) {
    this.timeline = new Timeline(facts, (time) => this.player.seek(time));
    this.timeline.at(this.player.time);
    this.timeline.showTurn(this.turn ?? null);
    show(this.line, this.timeline.element);
  }
}
