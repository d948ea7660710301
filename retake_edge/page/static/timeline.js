// The timeline under the player: pictures, where the answer looked, what was kept.

import { el, shape } from "./dom.js";
import { clock, percent } from "./words.js";

const COLUMNS = 600, HEIGHT = 100, PICTURE_PX = 54;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000];

/** Return the index of the frame that is shown at a time; `times` ascend. */
export function frameAt(times, time) {
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= time) low = middle; else high = middle - 1;
  }
  return low;
}

/** Return the picture, [time, address], that is closest to a time. */
export function pictureAt(facts, time) {
  let best = null;
  for (const picture of facts.pictures) {
    if (!best || Math.abs(picture[0] - time) <= Math.abs(best[0] - time)) best = picture;
  }
  return best;
}

/** Return the largest value of each column; a frame is shown until the next one begins. */
export function columns(facts, values, n = COLUMNS) {
  const found = new Array(n).fill(0), length = facts.end_s - facts.start_s;
  values.forEach((value, i) => {
    const end = i + 1 < values.length ? facts.times_s[i + 1] : facts.end_s;
    const first = Math.floor(n * (facts.times_s[i] - facts.start_s) / length);
    const last = Math.max(first + 1, Math.round(n * (end - facts.start_s) / length));
    for (let at = Math.max(0, first); at < Math.min(n, last); at++) found[at] = Math.max(found[at], value);
  });
  return found;
}

function outline(values, most) {
  const width = 1000 / values.length;
  const steps = values.map((value, i) =>
    `V${(HEIGHT * (1 - Math.min(1, value / most))).toFixed(1)}H${((i + 1) * width).toFixed(2)}`);
  return `M0 ${HEIGHT}${steps.join("")}V${HEIGHT}Z`;
}

function track(kind, facts, values, most) {
  const path = shape("path", { d: outline(columns(facts, values), most || 1) });
  return el("div", { class: `track ${kind}` },
    shape("svg", { viewBox: `0 0 1000 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, path));
}

/** The timeline of a video's facts; `onSeek` gets the time that is chosen. */
export class Timeline {
  constructor(facts, onSeek) {
    this.facts = facts;
    this.onSeek = onSeek;
    this.turn = null;
    this.time = facts.start_s;
    this.readTo = null; // all is read
    this.strip = el("div", { class: "strip" });
    this.looked = el("div", { class: "looked" });
    this.bands = el("div", { class: "bands" });
    this.head = el("div", { class: "head" });
    this.unread = el("div", { class: "unread", hidden: true });
    this.cursor = el("div", { class: "cursor", hidden: true });
    this.axis = el("div", { class: "axis" });
    this.readout = el("div", { class: "readout", hidden: true, "aria-hidden": "true" });
    this.bar = el("div", {
      class: "bar", role: "slider", tabindex: "0", "aria-label": "Timeline",
      "aria-valuemin": Math.floor(facts.start_s), "aria-valuemax": Math.ceil(facts.end_s),
      onkeydown: (event) => this.#key(event),
      onpointerdown: (event) => this.#press(event),
      onpointermove: (event) => this.#point(event),
      onpointerleave: () => this.#hide(),
      onpointercancel: () => this.#hide(),
    },
      this.strip, this.looked,
      facts.kept && track("kept", facts, facts.kept, Math.max(...facts.kept)),
      this.axis, this.bands, this.unread, this.cursor, this.head);
    this.legend = el("figcaption");
    this.element = el("figure", { class: "timeline" }, this.bar, this.readout, this.legend);
    new ResizeObserver(() => this.#layOut()).observe(this.bar);
    this.at(this.time);
    this.showTurn(null);
  }

  /** Show where an answer looked (null: none). */
  showTurn(turn) {
    this.turn = turn;
    const { facts } = this, weights = turn?.weights?.length === facts.times_s.length ? turn.weights : null;
    this.looked.replaceChildren(...weights ? [track("look", facts, weights, Math.max(...weights))] : []);
    this.bands.replaceChildren(...(turn?.spans ?? []).map((span) => el("div", {
      class: "band",
      style: {
        left: `${this.#share(span.start_s)}%`,
        width: `${this.#share(span.end_s) - this.#share(span.start_s)}%`,
      },
    })));
    const marks = [
      weights && ["look", "where the answer looked"],
      facts.kept && ["kept", "what was kept"],
    ].filter(Boolean);
    this.legend.replaceChildren(...marks.map(([kind, words]) => el("span", { class: `mark ${kind}` }, words)));
    this.#say();
  }

  /** Move the playhead. */
  at(time) {
    this.time = Math.min(Math.max(time, this.facts.start_s), this.facts.end_s);
    this.head.style.left = `${this.#share(this.time)}%`;
    this.#say();
  }

  /** Dim what lies behind a time: it is not read yet (null: all is). */
  readUntil(time) {
    this.readTo = time;
    this.unread.hidden = time === null;
    if (time !== null) this.unread.style.left = `${this.#share(time)}%`;
  }

  /** Take more pictures of a video that is being read. */
  addPictures(pictures) {
    this.facts.pictures.push(...pictures);
    this.#layOut();
  }

  #share(time) {
    const { start_s: start, end_s: end } = this.facts;
    return 100 * Math.min(1, Math.max(0, (time - start) / (end - start)));
  }

  #lines(time) {
    const { facts, turn } = this, frame = frameAt(facts.times_s, time), lines = [];
    if (turn?.weights?.length === facts.times_s.length) lines.push(`looked at ${percent(turn.weights[frame])}`);
    if (facts.kept) lines.push(`kept ${percent(facts.kept[frame])}`);
    return lines;
  }

  #say() {
    this.bar.setAttribute("aria-valuenow", Math.round(this.time));
    this.bar.setAttribute("aria-valuetext", [clock(this.time), ...this.#lines(this.time)].join(", "));
  }

  #layOut() {
    const width = this.bar.clientWidth, { facts } = this, length = facts.end_s - facts.start_s;
    if (!width) return;
    const [w, h] = facts.shape;
    const fitting = Math.max(1, Math.floor(width / (PICTURE_PX * w / h)));
    const n = this.readTo === null ? Math.min(facts.pictures.length, fitting) : fitting;
    const middles = Array.from({ length: n }, (_, i) => facts.start_s + (i + 0.5) / n * length);
    const until = this.readTo ?? Infinity;
    const pictures = middles.map((time) => time <= until && pictureAt(facts, time));
    this.strip.replaceChildren(...n > 0 ? pictures.map((picture) => picture
      ? el("img", { src: picture[1], alt: "", draggable: "false" }) : el("span")) : []);
    const step = STEPS.find((s) => length / s <= Math.max(2, width / 72)) ?? STEPS.at(-1);
    const ticks = [];
    for (let t = Math.ceil(facts.start_s / step) * step; t < facts.end_s; t += step) {
      if (this.#share(t) / 100 * width < width - 46) ticks.push(el("span", { style: { left: `${this.#share(t)}%` } }, clock(t)));
    }
    this.axis.replaceChildren(...ticks);
  }

  #timeAt(event) {
    const box = this.bar.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return this.facts.start_s + share * (this.facts.end_s - this.facts.start_s);
  }

  #press(event) {
    if (event.button !== 0) return;
    this.bar.setPointerCapture(event.pointerId);
    this.#seek(this.#timeAt(event));
    this.#point(event);
  }

  #point(event) {
    const time = this.#timeAt(event);
    if (event.buttons & 1 && this.bar.hasPointerCapture(event.pointerId)) this.#seek(time);
    const box = this.bar.getBoundingClientRect();
    const x = this.#share(time) / 100 * box.width;
    const picture = pictureAt(this.facts, time);
    this.readout.replaceChildren(
      picture ? el("img", { src: picture[1], alt: "" }) : "",
      el("b", {}, clock(time)), ...this.#lines(time).map((line) => el("span", {}, line)));
    this.cursor.hidden = this.readout.hidden = false;
    this.cursor.style.left = `${x}px`;
    const width = this.readout.offsetWidth;
    this.readout.style.left = `${Math.min(Math.max(x - width / 2, 0), box.width - width)}px`;
  }

  #hide() {
    this.cursor.hidden = this.readout.hidden = true;
  }

  #seek(time) {
    this.at(time);
    this.onSeek(time);
  }

  #key(event) {
    const { start_s: start, end_s: end, times_s: times } = this.facts;
    const step = times.length > 1 ? Math.max(1, (end - start) / times.length) : 1;
    const to = {
      ArrowLeft: this.time - step, ArrowRight: this.time + step,
      ArrowDown: this.time - step, ArrowUp: this.time + step,
      PageDown: this.time - (end - start) / 10, PageUp: this.time + (end - start) / 10,
      Home: start, End: end,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#seek(to);
  }
}
