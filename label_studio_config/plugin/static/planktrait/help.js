// The dialog of the keys that work on a page: `?` opens it, Escape or `?` closes it.

import { byId, make } from "./dom.js";
import { TYPED } from "./keys.js";

/** What the keyboard does on every page, since browsers and dialogs do it. */
export const EVERYWHERE = {
  "On every page": [
    [["Tab", "Shift+Tab"], "Go to the next, the previous button, list or field"],
    [["Enter", "Space"], "Press the button, follow the link"],
    [["Esc"], "Close what has opened"],
    [["?"], "This help"],
  ],
};

export class Help {
  /** `columns()`: by title, entries `[keys, what they do]`, or an element. */
  constructor(columns) {
    this.columns = columns;
    this.dialog = byId("help");
    byId("help-open").addEventListener("click", () => this.open());
    byId("help-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "?") this.dialog.close();
    });
  }

  /** Where the page has no keys of its own. */
  listen() {
    document.addEventListener("keydown", (event) => {
      if (event.key !== "?" || event.isComposing || event.target.closest(TYPED)) return;
      if (document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.open();
    });
    return this;
  }

  open() {
    const columns = Object.entries(this.columns()).map(([title, content]) =>
      make("section", {}, make("h3", {}, title),
        content instanceof Element ? content : make("dl", {}, ...rows(content))),
    );
    this.dialog.style.setProperty("--columns", columns.length);
    byId("help-body").replaceChildren(...columns);
    this.dialog.showModal();
  }
}

/** "Ctrl+Z" → two keys with a plus between them. */
function key(name) {
  const parts = name.length > 1 ? name.split("+") : [name];
  return parts.flatMap((part, i) => (i ? ["+", make("kbd", {}, part)] : [make("kbd", {}, part)]));
}

function rows(entries) {
  return entries.map(([names, text]) => {
    const keys = names.flatMap((name, i) => (i ? [" or ", ...key(name)] : key(name)));
    return make("div", { class: "entry" }, make("dt", {}, ...keys), make("dd", {}, text));
  });
}
