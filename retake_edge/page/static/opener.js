// Open a video: drop it, choose a file, or choose one that lies on the server.

import { call, upload } from "./api.js";
import { el, icon, show } from "./dom.js";
import { bytes, percent } from "./words.js";

/** The part of the page that opens videos; `onOpen` gets the opened video. */
export class Opener {
  constructor({ props, onOpen }) {
    this.props = props;
    this.onOpen = onOpen;
    this.uploads = el("div", { class: "uploads", "aria-live": "polite" });
    this.files = el("div", { class: "files" });
    this.input = el("input", {
      type: "file", accept: "video/*,.mkv,.avi,.ts,.m2ts,.mts,.flv,.wmv,.mxf,.vob,.y4m", multiple: true,
      class: "hidden-input", tabindex: "-1", "aria-hidden": "true",
      onchange: () => { this.take(this.input.files); this.input.value = ""; },
    });
    const choose = el("button", { type: "button", class: "primary", onclick: () => this.input.click() },
      icon("upload"), "Choose a video");
    const browse = props.retake.takes_paths && el("button", {
      type: "button", "aria-expanded": "false", onclick: () => this.#browse(browse),
    }, icon("folder"), "Choose on the server");
    const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
    this.element = el("section", { class: "opener", "aria-labelledby": "opener-title" },
      el("div", { class: "drop" },
        el("h1", { id: "opener-title" }, "Ask a video"),
        el("p", {}, "Drop a video here. It is read once; then ask what you want to know, and see where "
          + "in the video the answer comes from."),
        el("div", { class: "buttons" }, choose, browse, this.input),
        el("p", { class: "note" },
          isHere ? "It stays on this machine. " : `It goes to ${location.host}, and nowhere else. `,
          `Read by ${props.model_alias}; ${bytes(props.retake.max_upload_bytes)} at most.`)),
      this.uploads, this.files);
  }

  /** Upload files, one after another. */
  async take(files) {
    for (const file of [...files]) await this.#upload(file);
  }

  async #upload(file) {
    const stop = new AbortController();
    const bar = el("progress", { max: "1", value: "0", "aria-label": `Upload of ${file.name}` });
    const words = el("span", { class: "note" }, "0 %");
    const row = el("div", { class: "upload" }, el("b", {}, file.name), bar, words,
      el("button", { type: "button", class: "quiet", "aria-label": "Cancel", onclick: () => stop.abort() }, icon("close")));
    this.uploads.append(row);
    try {
      const id = await upload(file, (share) => {
        bar.value = share;
        words.textContent = share < 1 ? percent(share) : "being stored";
      }, stop.signal);
      row.remove();
      this.onOpen(await call("POST", "/api/videos", { file_id: id }));
    } catch (error) {
      if (error.name === "AbortError") return row.remove();
      bar.remove();
      words.textContent = error.message;
      words.className = "error";
      row.lastChild.onclick = () => row.remove();
    }
  }

  async #browse(button) {
    const opens = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", String(opens));
    if (opens) await this.#list("");
    else show(this.files);
  }

  async #list(path) {
    let folder;
    try {
      folder = await call("GET", `/api/folder?path=${encodeURIComponent(path)}`);
    } catch (error) {
      return show(this.files, el("p", { class: "error" }, error.message));
    }
    const up = folder.parent !== null && [{ path: folder.parent, name: "..", is_folder: true }];
    const rows = [...up || [], ...folder.entries].map((entry) => el("li", {},
      el("button", { type: "button", onclick: () => this.#choose(entry) },
        entry.is_folder ? icon("folder") : el("span", { class: "icon" }),
        el("span", { class: "name" }, entry.name === ".." ? "Up" : entry.name),
        entry.bytes !== null && entry.bytes !== undefined && el("span", { class: "note" }, bytes(entry.bytes)))));
    show(this.files,
      el("h2", {}, folder.name || "Folders"),
      rows.length ? el("ul", {}, ...rows) : el("p", { class: "note" }, "There is no video here."),
      folder.n_more > 0 && el("p", { class: "note" }, `${folder.n_more} more are not shown.`));
    this.files.querySelector("button")?.focus();
  }

  async #choose(entry) {
    if (entry.is_folder) return this.#list(entry.path);
    try {
      this.onOpen(await call("POST", "/api/videos", { path: entry.path }));
    } catch (error) {
      this.files.append(el("p", { class: "error", role: "alert" }, error.message));
    }
  }
}
