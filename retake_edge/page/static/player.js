// The player: the video itself, or large pictures of it where the browser cannot play it.

import { el } from "./dom.js";
import { pictureAt } from "./timeline.js";
import { clock } from "./words.js";

/** A player; `onTime` gets the time whenever it moves, `onFail` is called once where it cannot play. */
export class Player {
  constructor({ onTime, onFail = () => {}, note = "" }) {
    this.onTime = onTime;
    this.note = note;
    this.facts = null;
    this.src = undefined; // neither an address nor none, yet
    this.time = 0;
    this.video = el("video", {
      controls: true, playsinline: true, preload: "metadata", "aria-label": "The video",
      ontimeupdate: () => this.#moved(), onseeking: () => this.#moved(),
      onloadedmetadata: () => this.#loaded(),
      onerror: () => this.#failed(onFail),
    });
    this.still = el("img", { class: "still", alt: "", hidden: true });
    this.caption = el("p", { class: "cannot", hidden: true });
    this.element = el("div", { class: "player" }, this.video, this.still, this.caption);
  }

  /** Whether the video itself is there to be played. */
  get plays() {
    return !this.video.hidden;
  }

  /** Play from an address (null: pictures alone). */
  load(src, facts) {
    const isNew = src !== this.src;
    this.src = src;
    if (isNew) this.#stillInstead(!src, "");
    this.describe(facts);
    if (src && isNew) this.video.src = src;
  }

  /** Take the facts of the video, once it is read. */
  describe(facts) {
    this.facts = facts;
    if (facts) this.element.style.setProperty("--shape", `${facts.shape[0]} / ${facts.shape[1]}`);
    if (!this.plays) this.seek(this.time);
  }

  /** Go to a time; the video then runs if it `plays`. */
  seek(time, { play = false } = {}) {
    this.time = time;
    if (this.plays) {
      if (this.video.readyState) this.video.currentTime = time;
      if (play) this.video.play().catch(() => {});
    } else if (this.facts) {
      const picture = pictureAt(this.facts, time);
      this.still.hidden = !picture;
      if (picture) [this.still.src, this.still.alt] = [picture[1], `Picture at ${clock(picture[0])}`];
    }
    this.onTime(time);
  }

  /** Run or pause. */
  toggle() {
    if (this.plays) this.video.paused ? this.video.play().catch(() => {}) : this.video.pause();
  }

  #loaded() {
    if (this.time && this.video.currentTime !== this.time) this.video.currentTime = this.time;
  }

  #moved() {
    this.time = this.video.currentTime;
    this.onTime(this.time);
  }

  #failed(onFail) {
    this.#stillInstead(true, this.note);
    this.seek(this.time);
    onFail();
  }

  #stillInstead(instead, words) {
    this.video.hidden = instead;
    this.still.hidden = !instead || !this.facts?.pictures.length;
    this.caption.hidden = !words;
    this.caption.textContent = words;
  }
}
