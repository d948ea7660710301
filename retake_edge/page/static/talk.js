// The conversation about a video: what was said, the answer being written, and where to ask.

import { el, icon, show } from "./dom.js";
import { answerText, turnView } from "./turn.js";
import { lasting } from "./words.js";

const HINTS = ["What happens, and when?", "List the main moments with their times.", "What changes in the video?"];

/** A conversation; `page`: {facts, onTime, href, onShow, onCopy}, and onAsk, onStop, onNew, onForget. */
export class Talk {
  constructor(page) {
    this.page = page;
    this.turns = el("div", { class: "turns" });
    this.pending = el("div", { class: "pending" });
    this.hints = el("div", { class: "hints" }, ...HINTS.map((words) => el("button", {
      type: "button", onclick: () => { this.input.value = words; this.#grow(); this.input.focus(); },
    }, words)));
    this.said = el("p", { class: "only-heard", role: "status" });
    this.input = el("textarea", {
      id: "question", rows: "1", placeholder: "Ask about the video", maxlength: "20000", enterkeyhint: "send",
      oninput: () => this.#grow(),
      onkeydown: (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          this.#ask();
        }
      },
    });
    this.button = el("button", { type: "submit", class: "primary" });
    this.form = el("form", {
      class: "composer",
      onsubmit: (event) => { event.preventDefault(); this.isBusy ? page.onStop() : this.#ask(); },
    }, el("label", { for: "question", class: "only-heard" }, "Question"), this.input, this.button);
    this.forget = el("button", {
      type: "button", class: "quiet", "aria-label": "Forget this conversation", title: "Forget this conversation",
      onclick: () => page.onForget(),
    }, icon("remove"));
    this.more = el("button", { type: "button", onclick: () => page.onNew() }, icon("add"), "New conversation");
    this.scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "What was said" },
      this.turns, this.pending, this.hints);
    this.element = el("section", { class: "talk", "aria-labelledby": "talk-title" },
      el("header", {}, el("h2", { id: "talk-title" }, "Conversation"), this.more, this.forget),
      this.scroll, this.said, this.form);
    this.isBusy = false;
    this.views = [];
    this.showPending(null);
  }

  /** Show the turns of a conversation; the last one is the chosen one. */
  showTurns(turns) {
    this.views = turns.map((turn) => turnView(turn, this.page));
    this.all = turns;
    show(this.turns, ...this.views);
    this.forget.hidden = this.more.hidden = !turns.length;
    this.#hint();
    this.choose(turns.at(-1) ?? null);
  }

  /** Mark the turn that the timeline shows. */
  choose(turn) {
    this.views.forEach((view, i) => view.classList.toggle("chosen", this.all[i] === turn));
  }

  /** Show an answer that is being written, {question, text, error}, or why there is none yet. */
  showPending(answer, waiting = "") {
    const wasBusy = this.isBusy;
    this.isBusy = Boolean(answer && !answer.error);
    this.answer = answer;
    show(this.button, icon(this.isBusy ? "stop" : "ask"), el("span", { class: "only-heard" }, this.isBusy ? "Stop" : "Ask"));
    this.button.title = this.isBusy ? "Stop" : "Ask";
    if (!answer) show(this.pending);
    else show(this.pending, el("article", { class: "turn", "aria-busy": String(this.isBusy) },
      el("h3", { class: "question" }, answer.question),
      el("div", { class: "answer" }, this.#begun(answer, waiting))));
    this.#hint();
    if (answer && !wasBusy) this.toEnd();
    else this.#follow();
  }

  #begun(answer, waiting) {
    if (answer.error) {
      return [el("p", { class: "error", role: "alert" }, answer.error.message), el("div", { class: "buttons" },
        el("button", { type: "button", onclick: () => this.page.onAgain(answer) }, "Ask again"),
        el("button", { type: "button", onclick: () => this.page.onStop() }, "Leave it"))];
    }
    if (!answer.text) return el("p", { class: "waiting" }, waiting || "Looking…");
    const text = answerText(answer.text, this.page);
    text.classList.add("growing");
    return text;
  }

  /** Tell those who hear the page of an answer that is whole. */
  tellDone(turn) {
    this.said.textContent = `Answer: ${turn.text}`;
  }

  /** Show what was said last. */
  toEnd() {
    this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  #follow() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroll;
    if (scrollHeight - scrollTop - clientHeight < 120) this.toEnd();
  }

  #hint() {
    this.hints.hidden = Boolean(this.views.length || this.answer);
  }

  #ask() {
    const question = this.input.value.trim();
    if (!question || this.isBusy) return;
    this.input.value = "";
    this.#grow();
    this.page.onAsk(question);
  }

  /** Give back a question that was not taken. */
  giveBack(question) {
    if (!this.input.value) this.input.value = question;
    this.#grow();
    this.input.focus();
  }

  #grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 2, 200)}px`;
  }
}

/** Return what someone is told who waits for an answer. */
export function waitingWords(live) {
  const progress = live.reading?.progress;
  if (!live.reading) return "";
  if (!progress || progress.time_s === undefined) return "The video waits to be read; the answer comes after that.";
  const left = progress.left_s === null ? "" : `, about ${lasting(progress.left_s)} left`;
  return `The answer comes when the video is read${left}.`;
}
