// What the colours mean, as a list with counts; an entry that is clicked is seen alone.

import { SIGNS } from "./cell.js";
import { make, plural, shown, whole } from "./dom.js";
import { colourOf } from "./map-palette.js";

const WAYS = [["label", "Label"], ["confidence", "Confidence"], ["state", "State"]];
const TITLES = { label: "Suggested as", confidence: "Confidence of the suggestion", state: "State" };

/** Events: `way` {by}, `alone`. */
export class Legend extends EventTarget {
  alone = new Set();
  entries = [];

  constructor() {
    super();
    this.ways = WAYS.map(([by, words]) =>
      make("button", { type: "button", "data-by": by, onclick: () => this.dispatchEvent(new CustomEvent("way", { detail: { by } })) }, words));
    this.title = make("h2", { id: "legend-title" });
    this.list = make("ul", { class: "labels legend-list", "aria-labelledby": "legend-title" });
    this.all = make("button", { type: "button", class: "show-all", onclick: () => this.showAll() }, "Show all colours");
    this.element = make("div", { class: "map-legend" },
      make("h2", {}, "Colour by"),
      make("span", { class: "segments", role: "group", "aria-label": "Colour by" }, ...this.ways),
      this.title, this.list, this.all);
  }

  /** The entries of one way to colour; what is seen alone stays, as far as it is still there. */
  show(by, entries) {
    const keys = new Set(entries.map((entry) => entry.key));
    if (by !== this.by) this.alone.clear();
    for (const key of this.alone) if (!keys.has(key)) this.alone.delete(key);
    Object.assign(this, { by, entries });
    this.#draw();
  }

  isShown(entry) {
    return !this.alone.size || this.alone.has(entry.key);
  }

  /** By byte, whether points are seen. */
  seen() {
    const seen = new Uint8Array(256);
    for (const entry of this.entries) if (this.isShown(entry)) for (const code of entry.codes) seen[code] = 1;
    return seen;
  }

  /** In words, what is seen alone; empty where all is. */
  get words() {
    return this.entries.filter((entry) => this.alone.has(entry.key)).map(nameOf).join(", ");
  }

  showAll() {
    this.alone.clear();
    this.#changed();
  }

  #toggle(entry, several) {
    const was = this.alone.has(entry.key);
    if (several) this.alone[was ? "delete" : "add"](entry.key);
    else {
      const only = was && this.alone.size === 1;
      this.alone.clear();
      if (!only) this.alone.add(entry.key);
    }
    this.#changed();
  }

  #changed() {
    this.#draw();
    this.dispatchEvent(new Event("alone"));
  }

  #draw() {
    for (const way of this.ways) way.setAttribute("aria-pressed", String(way.dataset.by === this.by));
    this.title.textContent = TITLES[this.by];
    this.all.hidden = !this.alone.size;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const most = Math.max(1, ...this.entries.map((entry) => entry.count));
    this.list.replaceChildren(...this.entries.map((entry) => make("li", {}, this.#item(entry, most))));
    if (focused != null) [...this.list.querySelectorAll("button")].find((one) => one.dataset.key === focused)?.focus();
  }

  #item(entry, most) {
    const pressed = this.alone.has(entry.key);
    const swatch = make("i", { class: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = colourOf(entry, this.alone);
    const share = make("span", { class: "share", "aria-hidden": "true" });
    share.style.transform = `scaleX(${entry.count / most})`;
    return make("button", {
      type: "button", class: `label${this.isShown(entry) ? "" : " hidden-colour"}`, "data-key": entry.key, "aria-pressed": String(pressed),
      "aria-label": `${nameOf(entry)}, ${plural(entry.count, "image")}`,
      title: "See it alone; with Ctrl, besides others",
      onclick: (event) => this.#toggle(entry, event.ctrlKey || event.metaKey || event.shiftKey),
    }, share, swatch, make("span", { class: "name" }, nameOf(entry)), make("span", { class: "count" }, whole(entry.count)));
  }
}

function nameOf(entry) {
  if (entry.state) {
    const { text } = SIGNS[entry.state];
    return text[0].toUpperCase() + text.slice(1);
  }
  return shown(entry.name);
}
