// The views of the gallery. A view adds itself with `Tabs.offer(name, open)`; `open(box)` is called
// when its tab is first chosen, and fills the box.

import { byId } from "./dom.js";

const NAMES = ["labels", "clusters", "map"];
const offered = new Map();

export class Tabs {
  #opened = new Set();

  static offer(name, open) {
    offered.set(name, open);
  }

  constructor(view) {
    this.view = view;
    for (const name of NAMES) {
      const tab = byId(`tab-${name}`);
      tab.addEventListener("click", () => view.set({ tab: name }));
      tab.addEventListener("keydown", (event) => this.#key(event, name));
    }
    view.addEventListener("change", () => this.show());
    this.show();
  }

  #key(event, name) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = NAMES[(NAMES.indexOf(name) + by + NAMES.length) % NAMES.length];
    event.preventDefault();
    byId(`tab-${next}`).focus();
    this.view.set({ tab: next });
  }

  show() {
    const wanted = this.view.get("tab");
    const chosen = NAMES.includes(wanted) ? wanted : "labels";
    for (const name of NAMES) {
      const tab = byId(`tab-${name}`);
      tab.setAttribute("aria-selected", String(name === chosen));
      tab.tabIndex = name === chosen ? 0 : -1;
      byId(`view-${name}`).hidden = name !== chosen;
    }
    this.#open(chosen);
  }

  #open(name) {
    if (this.#opened.has(name)) return;
    this.#opened.add(name);
    offered.get(name)?.(byId(`view-${name}`));
  }
}
