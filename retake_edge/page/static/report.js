// The report: the page of one video, frozen, with all that it shows.

import { leftOut } from "./about.js";
import { el, show } from "./dom.js";
import { Player } from "./player.js";
import { Timeline, pictureAt } from "./timeline.js";
import { turnView } from "./turn.js";
import { clock } from "./words.js";

const GONE = "The video does not lie beside this page, so pictures of it are shown.";

function keyframes(data, onTime) {
  const pictures = data.keyframes.map((time) => el("li", {}, el("button", { type: "button", onclick: () => onTime(time) },
    el("img", { src: pictureAt(data.facts, time)[1], alt: "", loading: "lazy" }), el("span", {}, clock(time)))));
  return el("section", { class: "keyframes", "aria-labelledby": "keyframes" },
    el("h2", { id: "keyframes" }, "Moments that change most ",
      el("span", { class: "note" }, `${pictures.length} of ${data.n_keyframes}`)),
    el("ul", { tabindex: "0", "aria-label": "Pictures, in order of time" }, ...pictures));
}

function stages(data) {
  const rows = data.stages.map((stage) => el("tr", {},
    el("th", { scope: "row" }, stage.name),
    el("td", { class: "share" }, el("i", { style: { width: `${100 * stage.share}%` } })),
    el("td", {}, stage.seconds)));
  return el("table", { class: "stages" }, el("caption", {}, "Where the time went"), el("tbody", {}, ...rows));
}

function layers(data) {
  return el("figure", { class: "layers" },
    el("figcaption", {}, `What each of the ${data.layers.n} layers kept over time, the first one on top`),
    el("img", { src: data.layers.picture, alt: "A row for each layer; darker where more is kept." }));
}

function section({ name, rows }) {
  return el("table", {}, el("caption", {}, name), el("tbody", {}, ...rows.map(([key, value]) =>
    el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, value)))));
}

function folded(title, ...children) {
  return el("details", {}, el("summary", {}, title), ...children);
}

function showReport(data) {
  const { facts } = data;
  const timeline = new Timeline(facts, (time) => player.seek(time));
  const player = new Player({ note: GONE, onTime: (time) => timeline.at(time) });
  const stage = el("section", { class: "stage", "aria-label": "The video" }, player.element, timeline.element, leftOut(facts));
  const onTime = (time) => {
    player.seek(time, { play: true });
    const box = player.element.getBoundingClientRect();
    if (box.top < 0 || box.bottom > innerHeight) player.element.scrollIntoView({ block: "nearest" });
  };
  let views = [];
  const page = {
    facts, onTime, href: (time) => `#t=${Math.floor(10 * time) / 10}`,
    onShow: (turn) => {
      timeline.showTurn(turn);
      views.forEach((view, i) => view.classList.toggle("chosen", data.answers[i] === turn && views.length > 1));
    },
  };
  views = data.answers.map((turn) => turnView(turn, page));
  player.load(data.video_src, facts);
  const answers = views.length > 0 && el("section", { class: "answers", "aria-labelledby": "answers" },
    el("h2", { id: "answers", class: "only-heard" }, "Answers"), ...views);
  show(document.getElementById("main"),
    el("header", {}, el("h1", {}, facts.name),
      el("p", { class: "note" }, `${clock(facts.duration_s)} of video, read by ${data.model}`)),
    el("div", { class: answers ? "columns" : "" }, answers || "", stage),
    data.keyframes.length > 0 && keyframes(data, onTime),
    folded("How it was read",
      el("dl", {}, ...data.figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
      stages(data), data.layers && layers(data)),
    folded("Settings and hashes", el("div", { class: "settings" }, ...data.settings.map(section))),
    el("footer", {},
      el("p", {}, "Where an answer looked is the share of its attention to each picture. It says what the model "
        + "looked at while it answered, not that the answer is right."),
      el("p", {}, `Made by retake-edge ${data.version}. This page holds all it shows`,
        data.video_src ? ", but for the video." : ", and loads nothing.")));
  if (data.answers.length) page.onShow(data.answers[0]);
  const follow = () => {
    const time = new URLSearchParams(location.hash.slice(1)).get("t");
    if (time !== null) player.seek(Number(time) || 0);
  };
  addEventListener("hashchange", follow);
  follow();
}

showReport(JSON.parse(document.getElementById("data").textContent));
