// A question with its answer: the times in it are links, and so is what it looked at.

import { el, icon } from "./dom.js";
import { pictureAt } from "./timeline.js";
import { percent, timesIn } from "./words.js";

/** Return an answer's text with its times as links; `page`: {facts, onTime, href}. */
export function answerText(text, page) {
  const [start, end] = [page.facts?.start_s ?? 0, page.facts?.end_s ?? Infinity];
  const made = el("div", { class: "text" });
  text.split(/\*\*(.+?)\*\*/s).forEach((part, i) => {
    const inside = timesIn(part, start, end).map(([words, time]) =>
      time === null ? words : timeLink(words, time, page));
    made.append(...i % 2 ? [el("strong", {}, ...inside)] : inside);
  });
  return made;
}

/** Return a link that moves the player to a time. */
export function timeLink(words, time, page) {
  return el("a", {
    class: "time", href: page.href(time),
    onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      page.onTime(time);
    },
  }, words);
}

/** Return what an answer looked at: a button for each span, with its picture and its weight. */
export function evidence(turn, page) {
  if (!turn.spans.length) {
    const words = turn.is_stopped ? "" : turn.weights
      ? "It looked all over the video: no moment stands out."
      : "Where it looked is not known with this model.";
    return words ? el("p", { class: "note" }, words) : null;
  }
  const buttons = turn.spans.map((span) => {
    const picture = page.facts && pictureAt(page.facts, (span.start_s + span.end_s) / 2);
    return el("li", {}, el("button", {
      type: "button", class: "span",
      onclick: () => { page.onShow?.(turn); page.onTime(span.start_s); },
    },
      picture && el("img", { src: picture[1], alt: "" }),
      el("span", { class: "when" }, span.label),
      el("span", { class: "weight" },
        el("i", { style: { width: `${Math.round(100 * span.weight)}%` } }), percent(span.weight))));
  });
  return el("div", { class: "evidence" },
    el("p", { class: "note" }, "It looked most at"), el("ul", {}, ...buttons));
}

/** Return a whole turn. */
export function turnView(turn, page) {
  const notes = [
    turn.is_stopped && "Stopped.",
    turn.is_cut && "Cut off: it reached the most words an answer may have.",
  ].filter(Boolean);
  const copy = page.onCopy && el("button", {
    type: "button", class: "quiet", "aria-label": "Copy the answer", title: "Copy the answer",
    onclick: () => page.onCopy(turn),
  }, icon("copy"));
  return el("article", { class: "turn", onclick: () => page.onShow?.(turn) },
    el("h3", { class: "question", title: turn.at_s && new Date(1000 * turn.at_s).toLocaleString() }, turn.question),
    el("div", { class: "answer" },
      turn.text ? answerText(turn.text, page) : el("p", { class: "text" }, "(no words)"),
      notes.length ? el("p", { class: "note" }, notes.join(" ")) : null,
      evidence(turn, page), copy));
}
