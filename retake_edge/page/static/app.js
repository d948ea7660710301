// The server's page: which video is shown, and what goes on.

import { askKeyBy, call, events, forgetKey, hasKey, Refused } from "./api.js";
import { confirmed, showKeys, typedKey } from "./dialogs.js";
import { el, icon, show } from "./dom.js";
import { Opener } from "./opener.js";
import { drawShelf } from "./shelf.js";
import { Stage } from "./stage.js";
import { Talk, waitingWords } from "./talk.js";

const POLL_MS = 2000;
const KEYS = [
  ["/", "write a question"], ["k", "play or pause"], ["j, l", "5 seconds back, on"],
  ["n, p", "next, previous moment that the answer looked at"], ["o", "open a video"], ["?", "this list"],
];
const others = new BroadcastChannel("retake-edge");
const place = (name) => document.getElementById(name);

class App {
  constructor(props) {
    this.videos = [];
    this.shown = 0;
    this.opener = new Opener({ props, onOpen: (video) => this.#opened(video) });
    place("add").addEventListener("click", () => this.#home());
    place("keys").addEventListener("click", () => showKeys(KEYS));
    place("menu").addEventListener("click", () => this.#menu(!document.body.classList.contains("menu")));
    place("leave").addEventListener("click", () => { forgetKey(); location.reload(); });
    place("leave").hidden = !hasKey();
    addEventListener("hashchange", () => this.#route());
    addEventListener("focus", () => this.#refresh());
    others.onmessage = () => this.#refresh();
    document.addEventListener("keydown", (event) => this.#key(event));
    this.#catchDrops();
    setInterval(() => this.#isBusy() && !document.hidden && this.#list(), POLL_MS);
  }

  async start() {
    await this.#list();
    await this.#route();
  }

  // -- what is shown ----------------------------------------------------------------------------

  async #route() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const [id, chat, time] = [asked.get("v"), asked.get("c"), asked.get("t")];
    this.#menu(false);
    if (!id) return this.#showHome();
    if (id !== this.id) {
      await this.#open(id, chat);
    } else if (chat !== null && chat !== this.chat) {
      await this.#openChat(chat);
    }
    if (time !== null && this.stage) this.stage.seek(Number(time) || 0, false);
  }

  #home() {
    if (location.hash) location.hash = "";
    else this.#showHome();
    this.opener.element.querySelector("button").focus();
  }

  #showHome() {
    this.#leave();
    document.title = "retake-edge";
    show(place("main"), this.opener.element);
    document.body.classList.remove("watching");
    this.#draw();
  }

  #leave() {
    this.follow?.abort();
    this.id = this.chat = this.stage = this.talk = null;
    this.shown++;
  }

  async #open(id, chat) {
    this.#leave();
    const at = this.shown;
    let video;
    try {
      video = await call("GET", `/api/videos/${encodeURIComponent(id)}`);
    } catch (error) {
      if (at === this.shown) this.#showHome();
      return this.#complain(error);
    }
    if (at !== this.shown) return;
    this.id = id;
    this.video = video;
    this.media = video.media;
    this.stage = new Stage({
      onTime: () => {},
      onRead: () => this.#do("POST", "reading"),
      onStop: () => this.#do("DELETE", "reading"),
      onLost: () => this.#reload(),
    });
    this.talk = new Talk(this.#page());
    show(place("main"), this.stage.element, this.talk.element);
    document.body.classList.add("watching");
    document.title = `${video.name} - retake-edge`;
    this.stage.showVideo(video);
    await this.#openChat(chat ?? video.live.answers[0]?.chat ?? video.chats[0]?.id ?? "");
    this.#follow();
  }

  #page() {
    const app = this;
    return {
      get facts() { return app.video.facts; },
      href: (time) => `#v=${this.id}${this.chat ? `&c=${this.chat}` : ""}&t=${Math.floor(time * 10) / 10}`,
      onTime: (time) => this.stage.seek(time, true),
      onShow: (turn) => this.#choose(turn),
      onCopy: (turn) => this.#copy(turn),
      onAsk: (question) => this.#ask(question),
      onAgain: (answer) => this.#ask(answer.question),
      onStop: () => this.#stopAnswer(),
      onNew: () => { this.#openChat(""); this.talk.input.focus(); },
      onForget: () => this.#forgetChat(),
    };
  }

  async #openChat(id) {
    const at = this.shown;
    this.chat = id;
    let turns = [];
    if (id && this.video.chats.some((chat) => chat.id === id)) {
      turns = (await call("GET", `/api/videos/${this.id}/chats/${id}`)).turns;
    }
    if (at !== this.shown || this.chat !== id) return;
    this.turns = turns;
    this.talk.showTurns(turns);
    this.#choose(turns.at(-1) ?? null);
    this.#showLive(this.video.live);
    this.talk.toEnd();
    this.#address();
    this.#draw();
  }

  #address() {
    const hash = `#v=${this.id}${this.chat ? `&c=${this.chat}` : ""}`;
    if (!location.hash.startsWith(hash)) history.replaceState(null, "", hash);
  }

  #choose(turn) {
    this.turn = turn;
    this.talk.choose(turn);
    this.stage.showTurn(turn);
  }

  #draw() {
    drawShelf(place("shelf"), this.videos, this.id, this.chat, (video) => this.#forget(video));
  }

  // -- what goes on -----------------------------------------------------------------------------

  #isBusy() {
    return this.videos.some((video) => !video.live.is_idle);
  }

  async #list() {
    try {
      this.videos = (await call("GET", "/api/videos")).videos;
    } catch (error) {
      this.#complain(error);
    }
    this.#draw();
  }

  async #refresh() {
    await this.#list();
    if (this.id) await this.#reload();
  }

  /** Load the shown video and conversation again. */
  async #reload() {
    const at = this.shown, media = this.media;
    const before = [this.video.facts, this.chat, this.turns?.length];
    const video = await call("GET", `/api/videos/${this.id}`).catch((error) => error);
    if (at !== this.shown) return;
    if (video instanceof Error) {
      if (video.status === 404) location.hash = ""; // it was forgotten elsewhere
      return;
    }
    if (this.video.facts && video.facts) video.facts = this.#sameFacts(this.video.facts, video.facts);
    this.video = video;
    if (video.media !== media || video.facts !== before[0]) this.stage.showVideo(video);
    this.media = video.media;
    const head = video.chats.find((chat) => chat.id === this.chat);
    if (video.facts !== before[0] || (head && head.n_turns !== before[2])) await this.#openChat(this.chat);
    this.stage.showReading(video.state, video.live);
    this.#showLive(video.live);
    if (!video.live.is_idle) this.#follow();
  }

  #sameFacts(mine, theirs) {
    return JSON.stringify(mine) === JSON.stringify(theirs) ? mine : theirs;
  }

  async #follow() {
    if (this.follow && !this.follow.signal.aborted) return;
    if (this.video.live.is_idle) return;
    const stop = this.follow = new AbortController(), at = this.shown;
    try {
      for await (const live of events(`/api/videos/${this.id}/live`, stop.signal)) {
        if (at !== this.shown) return;
        this.video.live = live;
        if (live.reading && !live.reading.error) this.video.state = "reading";
        this.stage.showReading(live.reading?.error ? "failed" : this.video.state, live);
        this.#showLive(live);
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      console.error(error);
      await new Promise((done) => setTimeout(done, POLL_MS));
    } finally {
      stop.abort();
    }
    if (at !== this.shown) return;
    const n = this.turns.length;
    await this.#reload();
    if (this.turns.length > n) this.talk.tellDone(this.turns.at(-1));
    await this.#list();
    others.postMessage("changed");
  }

  #showLive(live) {
    const mine = live.answers.find((answer) => answer.chat === this.chat) ?? null;
    this.talk.showPending(mine, waitingWords(live));
  }

  async #ask(question) {
    const known = this.chat && this.video.chats.some((chat) => chat.id === this.chat);
    try {
      const { chat } = await call("POST", `/api/videos/${this.id}/questions`,
        { question, chat: known ? this.chat : "" });
      if (!known && this.chat) await call("DELETE", `/api/videos/${this.id}/chats/${this.chat}/answer`);
      this.chat = chat;
    } catch (error) {
      this.talk.giveBack(question);
      return this.#complain(error);
    }
    this.video.live = { ...this.video.live, is_idle: false };
    this.talk.showPending({ question, text: "" }, waitingWords(this.video.live));
    this.#address();
    others.postMessage("changed");
    this.#follow();
  }

  async #stopAnswer() {
    const answer = this.video.live.answers.find((one) => one.chat === this.chat);
    await call("DELETE", `/api/videos/${this.id}/chats/${this.chat}/answer`).catch((error) => this.#complain(error));
    if (answer && !answer.text) this.talk.giveBack(answer.question);
    await this.#refresh();
  }

  async #do(method, path) {
    try {
      const video = await call(method, `/api/videos/${this.id}/${path}`);
      Object.assign(this.video, { state: video.state, live: video.live });
      this.stage.showReading(video.state, video.live);
      this.#follow();
    } catch (error) {
      this.#complain(error);
    }
    others.postMessage("changed");
    this.#list();
  }

  async #opened(video) {
    others.postMessage("changed");
    await this.#list();
    if (location.hash.startsWith(`#v=${video.id}`)) this.#refresh();
    else location.hash = `#v=${video.id}`;
  }

  async #forget(video) {
    const words = `${video.name} leaves the list, and with it what was said about it. `
      + "What was read of it stays saved, and the file stays where it is unless it was uploaded here.";
    if (!await confirmed("Forget this video?", words, "Forget")) return;
    await call("DELETE", `/api/videos/${video.id}`).catch((error) => this.#complain(error));
    others.postMessage("changed");
    if (this.id === video.id) location.hash = "";
    this.#list();
  }

  async #forgetChat() {
    if (!await confirmed("Forget this conversation?", "Its questions and answers are removed.", "Forget")) return;
    await call("DELETE", `/api/videos/${this.id}/chats/${this.chat}`).catch((error) => this.#complain(error));
    this.video.chats = this.video.chats.filter((chat) => chat.id !== this.chat);
    others.postMessage("changed");
    await this.#list();
    await this.#openChat(this.video.chats[0]?.id ?? "");
  }

  async #copy(turn) {
    const where = turn.spans.map((span) => span.label).join(", ");
    await navigator.clipboard?.writeText(where ? `${turn.text}\n(${where})` : turn.text);
    this.#notice("Copied.");
  }

  // -- the page itself --------------------------------------------------------------------------

  #menu(opens) {
    document.body.classList.toggle("menu", opens);
    place("menu").setAttribute("aria-expanded", String(opens));
  }

  #complain(error) {
    if (error.name !== "AbortError") this.#notice(error instanceof Refused ? error.message : String(error), "error");
  }

  #notice(words, kind = "") {
    clearTimeout(this.noticeTimer);
    show(place("notice"), el("p", { class: kind }, words),
      el("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => show(place("notice")) }, icon("close")));
    this.noticeTimer = setTimeout(() => show(place("notice")), kind ? 12000 : 3000);
  }

  #catchDrops() {
    let depth = 0;
    const mark = (is) => document.body.classList.toggle("dropping", is);
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragenter", (event) => holdsFiles(event) && mark(++depth > 0));
    addEventListener("dragleave", (event) => holdsFiles(event) && mark(--depth > 0));
    addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      mark(Boolean(depth = 0));
      this.#home();
      this.opener.take(event.dataTransfer.files);
    });
  }

  #key(event) {
    if (event.key === "Escape") this.#menu(false);
    const isTyping = event.target.closest?.("input, textarea, select, dialog, [contenteditable]");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      "/": () => this.talk?.input.focus(),
      "?": () => showKeys(KEYS),
      k: () => this.stage?.player.toggle(),
      j: () => this.stage?.seek(Math.max(0, this.stage.player.time - 5), false),
      l: () => this.stage?.seek(this.stage.player.time + 5, false),
      n: () => this.#moment(1),
      p: () => this.#moment(-1),
      o: () => this.#home(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  #moment(step) {
    if (!this.stage) return;
    const times = (this.turn?.spans ?? []).map((span) => span.start_s).sort((a, b) => a - b);
    const now = this.stage.player.time;
    const next = step > 0 ? times.find((time) => time > now + 0.1) : times.findLast((time) => time < now - 0.5);
    if (next !== undefined) this.stage.seek(next, false);
  }
}

askKeyBy(typedKey);
try {
  await new App(await call("GET", "/props")).start();
} catch (error) {
  show(place("main"), el("p", { class: "error", role: "alert" }, error.message));
}
