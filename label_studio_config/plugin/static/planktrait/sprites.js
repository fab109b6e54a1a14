// One picture a page of crops, and where each crop stands in it.

import { address, getJson } from "./api.js";

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
    this.#kept.clear();
    this.#asked.clear();
  }

  /** `{url, width, height, cells: Map by task}` of the page, or null while it is on its way. */
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
      const picture = new Image();
      picture.src = address("gallery/sprite", values);
      // Decoded before it is shown: rows come with their pictures, not before them.
      const [map] = await Promise.all([getJson("gallery/sprite-map", values), picture.decode()]);
      if (generation !== this.#generation) return;
      const { src: url, naturalWidth: width, naturalHeight: height } = picture;
      const cells = new Map(map.cells.map((cell) => [cell.task, cell]));
      this.#keep(page, { tier, picture, url, width, height, cells });
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
    if (before && before.tier > sprite.tier) return;
    this.#kept.delete(page);
    this.#kept.set(page, sprite);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= KEPT) break;
      this.#kept.delete(oldest);
    }
  }
}
