// The list of opened videos, each with its conversations.

import { el, icon, show } from "./dom.js";
import { clock, percent } from "./words.js";

/** Return in a few words how far a video is. */
export function stateWords(video) {
  const progress = video.live.reading?.progress;
  if (video.state === "reading") {
    if (!progress || progress.time_s === undefined) return "waits to be read";
    return `being read, ${percent(shareOf(progress))}`;
  }
  if (video.state === "failed") return "could not be read";
  if (video.state === "unread") return "not read yet";
  return clock(video.duration_s ?? 0);
}

/** Return how much of what is to be read is read. */
export function shareOf(progress) {
  const length = progress.end_s - progress.start_s;
  return length > 0 ? Math.min(1, (progress.time_s - progress.start_s) / length) : 0;
}

function entry(video, isCurrent, chatId, onForget) {
  const chats = video.chats.map((chat) => el("li", {}, el("a", {
    href: `#v=${video.id}&c=${chat.id}`, title: chat.title,
    "aria-current": isCurrent && chat.id === chatId ? "true" : null,
  }, chat.title)));
  const reading = video.state === "reading" && el("progress", {
    max: "1", value: String(video.live.reading?.progress?.time_s === undefined ? 0 : shareOf(video.live.reading.progress)),
    "aria-label": `Reading of ${video.name}`,
  });
  return el("li", { class: isCurrent ? "video current" : "video" },
    el("div", { class: "row" },
      el("a", { href: `#v=${video.id}`, "aria-current": isCurrent ? "page" : null },
        video.picture ? el("img", { src: video.picture, alt: "" }) : el("span", { class: "blank" }),
        el("span", { class: "words" }, el("b", { title: video.name }, video.name),
          el("span", { class: "note" }, stateWords(video)))),
      el("button", {
        type: "button", class: "quiet", "aria-label": `Forget ${video.name}`, title: "Forget",
        onclick: () => onForget(video),
      }, icon("remove"))),
    reading,
    chats.length ? el("ul", { class: "chats", "aria-label": `Conversations about ${video.name}` }, ...chats) : null);
}

/** Draw the list into an element; what has the focus keeps it. */
export function drawShelf(parent, videos, current, chatId, onForget) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const at = focused && [...parent.querySelectorAll("a, button")].indexOf(focused);
  show(parent, videos.length
    ? el("ul", { class: "videos" }, ...videos.map((video) => entry(video, video.id === current, chatId, onForget)))
    : el("p", { class: "note" }, "No video was opened yet."));
  if (focused) parent.querySelectorAll("a, button")[at]?.focus();
}
