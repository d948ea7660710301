// What of the video the model did not see or keep, in words.

import { el } from "./dom.js";

/** Return the part of the page that says what was left out. */
export function leftOut(facts) {
  return el("section", { class: "left-out", "aria-label": "What was left out" },
    el("h2", {}, "What was left out"),
    el("ul", {}, ...facts.left_out.map((words) => el("li", {}, words))));
}
