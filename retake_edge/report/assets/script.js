"use strict";
// A line and a readout that follow the pointer (or finger) over the timeline.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tracks = document.getElementById("tracks");
  const cursor = document.getElementById("cursor");
  const readout = document.getElementById("readout");
  const pictures = [...document.querySelectorAll("img[data-time]")];

  const clock = (seconds) => {
    const s = Math.floor(seconds), two = (n) => String(n).padStart(2, "0");
    const rest = `${Math.floor(s / 60) % 60}:${two(s % 60)}`;
    return s < 3600 ? rest : `${Math.floor(s / 3600)}:${rest.padStart(5, "0")}`;
  };
  const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
  const frameAt = (time) => {
    let low = 0, high = data.times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.times[middle] <= time) low = middle; else high = middle - 1;
    }
    return low;
  };
  const nearest = (time) => pictures.reduce(
    (best, p) => Math.abs(p.dataset.time - time) < Math.abs(best.dataset.time - time) ? p : best);

  const show = (event) => {
    const box = tracks.getBoundingClientRect();
    const x = Math.min(Math.max(event.clientX - box.left, 0), box.width);
    const time = data.start + (data.end - data.start) * x / box.width;
    const frame = frameAt(time);
    const lines = [clock(time), `kept ${percent(data.kept[frame])}`];
    data.attention.forEach((weights, i) => {
      const of = data.attention.length > 1 ? ` ${i + 1}` : "";
      lines.push(`attention${of} ${percent(weights[frame])}`);
    });
    readout.textContent = "";
    if (pictures.length) {
      const picture = document.createElement("img");
      picture.src = nearest(data.times[frame]).src;
      picture.alt = "";
      readout.append(picture);
    }
    lines.forEach((line, i) => {
      const row = document.createElement(i ? "span" : "b");
      row.textContent = line;
      readout.append(row);
    });
    cursor.hidden = readout.hidden = false;
    cursor.style.left = `${x}px`;
    const width = readout.offsetWidth;
    readout.style.left = `${Math.min(Math.max(x - width / 2, 0), box.width - width)}px`;
  };
  tracks.addEventListener("pointermove", show);
  tracks.addEventListener("pointerdown", show);
  tracks.addEventListener("pointerleave", () => { cursor.hidden = readout.hidden = true; });
})();
