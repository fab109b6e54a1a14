// What is not saved yet, kept in the browser, so that neither a reload nor a crash loses it.

import { PROJECT } from "./api.js";

const OLD_MS = 600_000;

function tabName() {
  let name = window.sessionStorage.getItem("planktrait-tab");
  if (!name) {
    name = Math.random().toString(36).slice(2);
    window.sessionStorage.setItem("planktrait-tab", name);
  }
  return name;
}

export class Outbox {
  constructor(userId) {
    this.prefix = `planktrait-unsaved-${PROJECT}-${userId}-`;
    this.key = this.prefix + tabName();
  }

  keep(batches) {
    if (!batches.length) return window.localStorage.removeItem(this.key);
    const plain = batches.map(({ words, control, leadTime, seenAt, items }) => ({
      words,
      control,
      leadTime,
      seenAt,
      items: items.map(({ judgement, label }) => ({ judgement, label })),
    }));
    return window.localStorage.setItem(this.key, JSON.stringify({ at: Date.now(), plain }));
  }

  /** Batches of this tab before it was loaded anew, and of tabs that are long gone. */
  leftOver() {
    const found = [];
    for (const key of Object.keys(window.localStorage)) {
      if (!key.startsWith(this.prefix)) continue;
      try {
        const { at, plain } = JSON.parse(window.localStorage.getItem(key));
        if (key !== this.key && Date.now() - at < OLD_MS) continue;
        for (const batch of plain) {
          found.push({ ...batch, why: "left from before", items: batch.items });
        }
      } catch {
        // Not ours, or cut off: nothing can be read from it.
      }
      window.localStorage.removeItem(key);
    }
    return found;
  }
}
