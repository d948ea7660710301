// What the page asks the server for.

const KEY = "retake-edge-key";
let askForKey = async () => null;

/** A request that the server refused: one sentence, with its status and code. */
export class Refused extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Say how a key is asked for: a function that resolves to one, or to null. */
export function askKeyBy(ask) {
  askForKey = ask;
}

/** Forget the key. */
export function forgetKey() {
  localStorage.removeItem(KEY);
}

/** Return whether there is a key to forget. */
export function hasKey() {
  return localStorage.getItem(KEY) !== null;
}

function headers(more = {}) {
  const key = localStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}`, ...more } : more;
}

async function refusal(response) {
  const error = (await response.json().catch(() => ({}))).error ?? {};
  return new Refused(error.message ?? `The server says ${response.status}.`, response.status, error.code);
}

async function send(path, options) {
  for (;;) {
    const response = await fetch(path, { ...options, headers: headers(options.headers) }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Refused("The server does not answer; is it still running?");
    });
    if (response.ok) return response;
    if (response.status !== 401) throw await refusal(response);
    const key = await askForKey(hasKey());
    if (key === null) throw await refusal(response);
    localStorage.setItem(KEY, key);
  }
}

/** Send a request with a JSON body, if any; return the JSON that comes back. */
export async function call(method, path, body) {
  const json = body === undefined ? {} :
    { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return (await send(path, { method, ...json })).json();
}

/** Yield the server-sent events of a path. */
export async function* events(path, signal) {
  const reader = (await send(path, { signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
  }
}

/** Upload a file; `onShare` gets the share that is there. Return its id. */
export async function upload(file, onShare, signal) {
  await call("GET", "/v1/models"); // asks for the key before a large file is sent in vain
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", file, file.name);
  const request = new XMLHttpRequest(); // fetch tells no progress
  const done = new Promise((resolve, reject) => {
    request.onload = () => {
      const found = JSON.parse(request.responseText || "{}");
      if (request.status < 300) resolve(found.id);
      else reject(new Refused(found.error?.message ?? `The server says ${request.status}.`, request.status));
    };
    request.onerror = () => reject(new Refused("The upload broke off; is the server still running?"));
    request.onabort = () => reject(new DOMException("", "AbortError"));
  });
  request.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
  signal.addEventListener("abort", () => request.abort());
  request.open("POST", "/v1/files");
  Object.entries(headers()).forEach((pair) => request.setRequestHeader(...pair));
  request.send(form);
  return done;
}
