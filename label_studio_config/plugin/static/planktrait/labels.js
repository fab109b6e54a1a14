// The sidebar: which suggested label is shown, and how many images wait under each.

import { getJson } from "./api.js";
import { byId, debounce, make, shown, whole } from "./dom.js";

/** Event: `change` (counts are new). */
export class Labels extends EventTarget {
  counts = [];
  open = 0;
  #shown;
  #stop = new AbortController();

  constructor(view) {
    super();
    this.view = view;
    this.box = byId("labels");
    this.reloadSoon = debounce(() => this.load(), 1200);
  }

  async load() {
    this.#stop.abort();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    try {
      const answer = await getJson("gallery/labels", this.view.filterQuery(), signal);
      this.counts = answer.labels;
      this.open = answer.open;
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    this.show();
    this.dispatchEvent(new Event("change"));
  }

  /** Whether images of all labels are shown: what is like some, or what to label next. */
  get #ofAll() {
    return this.view.get("like").length > 0 || this.view.get("order") === "next";
  }

  /** How many images the label that is shown has, as far as is known. */
  get current() {
    const { label, open, all, every } = this.view.value;
    if (every) return this.total + this.open;
    if (open) return this.open;
    if (all || label == null) return this.total;
    return this.counts.find((one) => one.label === label)?.count ?? 0;
  }

  get total() {
    return this.counts.reduce((sum, one) => sum + one.count, 0);
  }

  /** Judged crops have left: the counts follow at once, and are asked for again soon. */
  took(n) {
    const { label, open } = this.view.value;
    if (open) this.open = Math.max(0, this.open - n);
    const entry = this.counts.find((one) => one.label === label);
    if (entry) entry.count = Math.max(0, entry.count - n);
    this.show();
    this.dispatchEvent(new Event("change"));
    this.reloadSoon();
  }

  show() {
    const { label, open, all, every } = this.view.value;
    const ofAll = this.#ofAll;
    const some = !open && !all && !every && label != null && !ofAll;
    const counts = [...this.counts];
    if (some && !counts.some((one) => one.label === label)) counts.push({ label, count: 0 });
    const most = Math.max(1, ...counts.map((one) => one.count));
    const items = [
      ...(every ? [this.#item("All images", this.total + this.open, !ofAll, { every: true }, "whole")] : []),
      this.#item("All suggested", this.total, !open && !some && !every && !ofAll, { all: true }, "whole"),
      ...counts.map((one) =>
        this.#item(shown(one.label), one.count, some && one.label === label, { label: one.label }, "", one.count / most),
      ),
      this.#item("Not suggested", this.open, open && !ofAll, { open: true }, "rest"),
    ];
    const focused = this.box.contains(document.activeElement);
    this.box.replaceChildren(...items);
    const chosen = this.box.querySelector("[aria-current]");
    if (focused) chosen?.focus();
    if (chosen && chosen.title !== this.#shown) chosen.scrollIntoView({ block: "nearest" });
    this.#shown = chosen?.title;
  }

  #item(name, count, current, choice, kind, share = 0) {
    const button = make(
      "button",
      {
        type: "button",
        class: `label ${kind}`,
        "aria-current": current ? "true" : false,
        title: name,
        onclick: () => this.choose(choice),
      },
      make("span", { class: "share", "aria-hidden": "true" }),
      make("span", { class: "name" }, name),
      make("span", { class: "count" }, whole(count)),
    );
    button.firstChild.style.transform = `scaleX(${share})`;
    return make("li", {}, button);
  }

  choose({ label = null, open = false, all = false, every = false }) {
    if (every) return;
    const order = this.view.get("order");
    const usual = order === "next" ? "certain" : order;
    this.view.set({ label, open, all, like: [], tab: "labels", order: usual });
  }

  /** The label after (or before) the one shown that has images. */
  neighbour(by) {
    const { label, open } = this.view.value;
    const names = this.counts.filter((one) => one.count > 0 || one.label === label);
    const at = open ? names.length : names.findIndex((one) => one.label === label);
    const next = names[at + by];
    if (next) return { label: next.label, count: next.count };
    if (by > 0 && !open && this.open > 0) return { open: true, count: this.open };
    return null;
  }

  step(by) {
    const next = this.neighbour(by);
    if (next) this.choose(next);
  }
}
