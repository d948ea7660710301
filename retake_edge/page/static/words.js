// Times, sizes and shares as people write them.

/** Return seconds as m:ss, or h:mm:ss from an hour on. */
export function clock(seconds) {
  const s = Math.max(0, Math.floor(seconds + 1e-6));
  const two = (n) => String(n).padStart(2, "0");
  const rest = `${Math.floor(s / 60) % 60}:${two(s % 60)}`;
  return s < 3600 ? rest : `${Math.floor(s / 3600)}:${rest.padStart(5, "0")}`;
}

/** Return a stretch of time as people say it: 8 s, 40 s, 9 min, 2 h 10 min. */
export function lasting(seconds) {
  if (seconds < 90) return `${seconds < 10 ? Math.max(1, Math.round(seconds)) : 5 * Math.round(seconds / 5)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const rest = minutes % 60;
  return `${Math.floor(minutes / 60)} h${rest ? ` ${rest} min` : ""}`;
}

/** Return a share in [0, 1] in percent. */
export function percent(share) {
  return `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)} %`;
}

/** Return bytes as people read them. */
export function bytes(n) {
  for (const unit of ["B", "kB", "MB"]) {
    if (n < 999.5) return `${Math.round(n)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} GB`;
}

/** Return how many there are of something. */
export function count(n, one, more = `${one}s`) {
  return `${n} ${n === 1 ? one : more}`;
}

const CLOCK = String.raw`(?<![\d:.])(?:(\d{1,2}):)?(\d{1,3}):([0-5]\d)(?:\.\d+)?(?![\d:])`;
const SECONDS = String.raw`(?<=\b(?:at|around|about|near|from|to|until|till|by|after|before|between|and|second|t=) |<)(\d+(?:\.\d+)?) ?(?:s|sec|secs|second|seconds)\b`;
const TIMES = new RegExp(`${CLOCK}|${SECONDS}`, "gi");

/** Return a text in parts, [text, seconds or null]: the times in it that lie in the video. */
export function timesIn(text, start, end) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(TIMES)) {
    const [whole, hours, minutes, seconds, plain] = found;
    const time = plain ? Number(plain) : Number(hours ?? 0) * 3600 + Number(minutes) * 60 + Number(seconds);
    if (time < start - 1 || time > end + 1) continue;
    if (found.index > from) parts.push([text.slice(from, found.index), null]);
    parts.push([whole, time]);
    from = found.index + whole.length;
  }
  if (from < text.length) parts.push([text.slice(from), null]);
  return parts;
}
