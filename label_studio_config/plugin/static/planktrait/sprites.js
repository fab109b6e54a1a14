// One picture a page of crops, and where each crop stands in it.

import { getBlob, getJson } from "./api.js";

const TIERS = [160, 320, 512];
const KEPT = 14;

/** The smallest tier that shows every crop of these sides (px on screen, native px) sharply. */
export function tierFor(sides) {
  let needed = 0;
  for (const { onScreen, native } of sides) needed = Math.max(needed, Math.min(onScreen, native));
  return TIERS.find((tier) => tier >= needed) ?? TIERS[TIERS.length - 1];
}

/** Events: `ready` {page, sizes: whether it told sizes that were not known}. */
export class Sprites extends EventTarget {
  #kept = new Map();
  #asked = new Set();
  #generation = 0;

  reset() {
    this.#generation += 1;
    for (const sprite of this.#kept.values()) sprite.bitmap.close();
    this.#kept.clear();
    this.#asked.clear();
  }

  /** `{bitmap, cells: Map by task}` of the page, or null while it is on its way. */
  get(page, tier) {
    const kept = this.#kept.get(page);
    if (kept) {
      this.#kept.delete(page);
      this.#kept.set(page, kept);
    }
    if (!kept || kept.tier < tier) this.#ask(page, tier);
    return kept ?? null;
  }

  /** What is here of the page; nothing is asked for. */
  peek(page) {
    return this.#kept.get(page) ?? null;
  }

  async #ask(page, tier) {
    const key = `${page.number}/${tier}`;
    if (this.#asked.has(key) || page.failures > 3) return;
    this.#asked.add(key);
    const generation = this.#generation;
    const values = { tasks: page.tasks.join(","), most_px: tier };
    try {
      const [blob, map] = await Promise.all([
        getBlob("gallery/sprite", values),
        getJson("gallery/sprite-map", values),
      ]);
      const bitmap = await createImageBitmap(blob);
      if (generation !== this.#generation) return bitmap.close();
      this.#keep(page, { tier, bitmap, cells: new Map(map.cells.map((c) => [c.task, c])) });
      this.dispatchEvent(new CustomEvent("ready", { detail: { page } }));
    } catch {
      if (generation !== this.#generation) return;
      page.failures = (page.failures ?? 0) + 1;
      setTimeout(() => {
        this.dispatchEvent(new CustomEvent("ready", { detail: { page } }));
      }, 1000 * page.failures);
    } finally {
      if (generation === this.#generation) this.#asked.delete(key);
    }
  }

  #keep(page, sprite) {
    const before = this.#kept.get(page);
    if (before && before.tier > sprite.tier) return sprite.bitmap.close();
    before?.bitmap.close();
    this.#kept.delete(page);
    this.#kept.set(page, sprite);
    for (const [oldest, old] of this.#kept) {
      if (this.#kept.size <= KEPT) break;
      old.bitmap.close();
      this.#kept.delete(oldest);
    }
  }
}
