// What is not saved yet, kept in the browser, so that neither a reload nor a crash loses it.

import { PROJECT } from "./api.js";
import { remember } from "./dom.js";

const OLD_MS = 600_000;

function tabName() {
  let name = window.sessionStorage.getItem("planktrait-tab");
  if (!name) {
    name = Math.random().toString(36).slice(2);
    try {
      window.sessionStorage.setItem("planktrait-tab", name);
    } catch {
      // After a reload it is another tab, whose outbox is read when it is old.
    }
  }
  return name;
}

/** `full`: the browser had no room for what is not saved; it is lost if the page is left. */
export class Outbox {
  full = false;

  constructor(userId) {
    this.prefix = `planktrait-unsaved-${PROJECT}-${userId}-`;
    this.key = this.prefix + tabName();
  }

  /** `givenUp`: keys of batches that the server is still to be told of. */
  keep(batches, givenUp) {
    this.full = false;
    if (!batches.length && !givenUp.length) return window.localStorage.removeItem(this.key);
    const plain = batches.map(({ key, words, control, leadTime, seenAt, judgedAt, items }) => ({
      key,
      words,
      control,
      leadTime,
      seenAt,
      judgedAt,
      items: items.map(({ judgement, label }) => ({ judgement, label })),
    }));
    this.full = !remember(this.key, JSON.stringify({ at: Date.now(), plain, givenUp }));
    return undefined;
  }

  /** Of this tab before it was loaded anew, and of tabs that are long gone: {batches, givenUp}. */
  leftOver() {
    const found = { batches: [], givenUp: [] };
    for (const key of Object.keys(window.localStorage)) {
      if (!key.startsWith(this.prefix)) continue;
      try {
        const { at, plain, givenUp = [] } = JSON.parse(window.localStorage.getItem(key));
        if (key !== this.key && Date.now() - at < OLD_MS) continue;
        for (const batch of plain) found.batches.push({ ...batch, why: "left from before" });
        found.givenUp.push(...givenUp);
      } catch {
        // Not ours, or cut off: nothing can be read from it.
      }
      window.localStorage.removeItem(key);
    }
    return found;
  }
}
