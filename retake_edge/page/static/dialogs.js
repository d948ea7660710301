// Questions that the page asks back.

import { el } from "./dom.js";

/** Show a dialog until a button is pressed, the first one by Enter; resolve to that button's value. */
function asked(title, parts, buttons) {
  return new Promise((resolve) => {
    const form = el("form", { method: "dialog" }, el("h2", { id: "dialog-title" }, title), ...parts,
      el("div", { class: "buttons" }, ...buttons));
    const dialog = el("dialog", { class: "ask", "aria-labelledby": "dialog-title" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault(); // the page's policy lets no form be sent
      dialog.close(event.submitter?.value ?? "");
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const cancel = () => el("button", { type: "submit", value: "", formnovalidate: true }, "Cancel");

/** Resolve to whether something is to be done. */
export async function confirmed(title, words, action) {
  const go = el("button", { type: "submit", value: "go", class: "danger" }, action);
  return await asked(title, [el("p", {}, words)], [go, cancel()]) === "go";
}

/** Resolve to the key that is typed in, null for none. */
export async function typedKey(wasWrong) {
  const input = el("input", {
    type: "password", id: "key", autocomplete: "current-password", required: true, autofocus: true,
  });
  const words = wasWrong ? "The key is not right." : "This server asks for its key (--api-key).";
  const go = el("button", { type: "submit", value: "go", class: "primary" }, "Go on");
  // A browser that keeps the key wants a name beside it.
  const name = el("input", { type: "text", autocomplete: "username", value: "retake-edge", hidden: true });
  const parts = [el("p", {}, words), name, el("label", { for: "key" }, "Key"), input];
  return await asked("Key", parts, [go, cancel()]) === "go" ? input.value.trim() : null;
}

/** Show what the keys do. */
export function showKeys(keys) {
  const rows = keys.map(([key, words]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, words)));
  const close = el("button", { type: "submit", value: "", autofocus: true }, "Close");
  return asked("Keys", [el("dl", { class: "keys" }, ...rows)], [close]);
}
