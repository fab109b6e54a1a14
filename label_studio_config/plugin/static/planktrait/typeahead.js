// Typing opens a list of all labels of the control: Enter assigns one to what is selected.

import { byId, make, plural, shown } from "./dom.js";

/** Whole words first: "co" finds Copepod before Siphonophore colony, and "mar sn" Marine snow. */
export function rank(label, typed) {
  const name = label.toLowerCase();
  const text = typed.trim().toLowerCase();
  if (!text) return 1;
  if (name.startsWith(text)) return 5;
  const words = name.split(/[^\p{L}\p{N}]+/u);
  const parts = text.split(/\s+/);
  if (parts.every((part) => words.some((word) => word.startsWith(part)))) return 4;
  if (name.includes(text)) return 3;
  let at = 0;
  for (const letter of text) {
    at = name.indexOf(letter, at) + 1;
    if (!at) return 0;
  }
  return 2;
}

export class TypeAhead {
  #found = [];
  #at = 0;

  /** `choose(label)` is called with what was chosen, `count()` says how many are selected. */
  constructor({ labels, count, choose, leave }) {
    Object.assign(this, { labels, count, choose, leave });
    this.box = byId("typeahead");
    this.input = byId("typeahead-input");
    this.list = byId("typeahead-list");
    this.input.addEventListener("input", () => this.#search());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => setTimeout(() => this.close(), 120));
    this.list.addEventListener("pointerdown", (event) => event.preventDefault());
  }

  get isOpen() {
    return !this.box.hidden;
  }

  open(text = "") {
    const n = this.count();
    byId("typeahead-title").textContent = n
      ? `Assign to ${plural(n, "selected image")}`
      : "Nothing is selected: show the images of";
    this.box.hidden = false;
    this.input.value = text;
    this.input.focus();
    this.#search();
  }

  close({ refocus = false } = {}) {
    if (!this.isOpen) return;
    this.box.hidden = true;
    if (refocus) this.leave();
  }

  #search() {
    const typed = this.input.value;
    this.#found = this.labels()
      .map((label) => ({ ...label, rank: rank(label.name, typed) }))
      .filter((label) => label.rank > 0)
      .sort((a, b) => b.rank - a.rank);
    this.#at = 0;
    this.#show();
  }

  #show() {
    const items = this.#found.map((label, number) =>
      make(
        "li",
        {
          role: "option",
          id: `option-${number}`,
          "aria-selected": String(number === this.#at),
          onclick: () => this.#take(number),
        },
        make("span", {}, shown(label.name)),
        label.hotkey ? make("kbd", {}, label.hotkey) : null,
      ),
    );
    if (!items.length) items.push(make("li", { class: "none" }, "No label of that name."));
    this.list.replaceChildren(...items);
    this.input.setAttribute("aria-activedescendant", this.#found.length ? `option-${this.#at}` : "");
    this.list.children[this.#at]?.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) {
      const n = this.#found.length || 1;
      this.#at = (this.#at + steps[event.key] + n) % n;
      this.#show();
    } else if (event.key === "Enter") this.#take(this.#at);
    else if (event.key === "Escape") this.close({ refocus: true });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #take(number) {
    const label = this.#found[number];
    if (!label) return;
    this.close({ refocus: true });
    this.choose(label.name);
  }
}
