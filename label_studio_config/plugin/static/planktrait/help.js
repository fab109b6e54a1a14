// What the keys do and what the signs mean.

import { SIGNS } from "./cell.js";
import { byId, make } from "./dom.js";
import { MAP_KEYS } from "./map-tab.js";

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

export class Help {
  constructor(keys) {
    this.keys = keys;
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

  open() {
    const onMap = !byId("view-map").hidden;
    const columns = Object.entries(onMap ? MAP_KEYS : this.#keysOfGallery()).map(([title, entries]) =>
      make("section", {}, make("h3", {}, title), make("dl", {}, ...rows(entries))),
    );
    if (!onMap) columns.push(this.#signs());
    byId("help-body").replaceChildren(...columns);
    this.dialog.showModal();
  }

  #signs() {
    const signs = Object.entries(SIGNS).map(([state, { sign, text }]) =>
      make("li", {}, make("span", { class: "sign", "data-state": state }, sign || "▁"), text),
    );
    return make("section", {}, make("h3", {}, "Signs"), make("ul", { class: "signs" }, ...signs));
  }

  #keysOfGallery() {
    const name = (letter) => this.keys.nameOf(letter);
    return {
      Judge: [
        [["Enter", name("a")], "Accept the selection as suggested; with nothing selected, all that is in the window"],
        [["a … z"], "Find a label by typing; Enter assigns it to the selection"],
        [["/"], "Open the list of labels"],
        [["its hotkey"], "Assign a label to the selection at once"],
        [["Ctrl+Z"], "Take the last judgement back, several times"],
      ],
      Select: [
        [["Click"], "One image; Shift: up to it; Ctrl: besides"],
        [["Drag"], "All images in the rubber band"],
        [["← ↑ → ↓"], "Go to the next image; Shift selects on the way"],
        [["Space"], "Select the image, or not"],
        [["Ctrl+A"], "All images in the window"],
        [["Esc"], "Select nothing"],
      ],
      "Look around": [
        [["[", "]"], "Previous, next label"],
        [["Page Up", "Page Down"], "One window up, down"],
        [["+", "−", "Ctrl+Wheel"], "Larger, smaller"],
        [[name("s")], "True scale, or all in the same size"],
        [[name("d")], "Words under each image, or not"],
        [[name("m")], "More like the selection"],
        [["Ctrl+Enter", "Double click"], "Open the image in the editor, in a new tab"],
      ],
    };
  }
}
