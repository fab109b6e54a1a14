// One row of images that look alike: what is on screen of it, and since when.

import { make, plural, whole } from "./dom.js";

const ROW_PX = 64;
const TIER = 160;
const SEEN_SHARE = 0.5;

/** `cluster` as the server tells it; `of`: what it is called; `noun`: what is in it; `words` about it;
 * `root` scrolls. */
export class ClusterRow {
  #since = null;

  constructor({ cluster, of, noun = "image", words, actions, root, sprites, watch }) {
    Object.assign(this, { cluster, sprites, watch });
    this.page = { number: `cluster-${cluster.id}`, tasks: cluster.tasks };
    this.strip = make("div", { class: "strip", role: "img", "aria-label": `The ${cluster.tasks.length} most typical images, ${words}` });
    this.actions = make("div", { class: "cluster-actions" }, ...actions);
    this.element = make("section", { class: "cluster", "aria-label": `${of}, ${plural(cluster.size, "image")}` },
      make("div", { class: "cluster-facts" },
        make("b", {}, plural(cluster.size, noun)),
        make("span", {}, words),
        cluster.done ? make("span", { class: "judged" }, `${whole(cluster.done)} judged already`) : null),
      this.strip,
      this.actions);
    new IntersectionObserver((seen, observer) => {
      if (!seen.some((one) => one.isIntersecting)) return;
      observer.disconnect();
      this.paint();
    }, { root, rootMargin: "300px" }).observe(this.element);
    new IntersectionObserver((seen) => {
      const visible = seen[seen.length - 1].intersectionRatio >= SEEN_SHARE;
      this.#since = visible ? (this.#since ?? watch.seconds) : null;
    }, { root, threshold: SEEN_SHARE }).observe(this.element);
  }

  /** Seconds for which it has been in the window, but no longer than since `from`. */
  secondsSeen(from) {
    const now = this.watch.seconds;
    return Math.max(0.1, now - Math.max(this.#since ?? now, from));
  }

  /** The suggestions that the words sum up, of images that can be seen: Map task → prediction. */
  suggestionsOnScreen() {
    const right = this.strip.getBoundingClientRect().right + 1;
    const tiles = [...this.strip.children].filter((tile) => tile.getBoundingClientRect().right <= right);
    const seen = new Set(tiles.map((tile) => Number(tile.dataset.task)));
    const said = (this.cluster.suggestions ?? []).filter(({ task }) => seen.has(task));
    return new Map(said.map(({ task, prediction }) => [task, prediction]));
  }

  /** Show its images once they are here. */
  paint() {
    const sprite = this.sprites.get(this.page, TIER);
    if (!sprite || this.strip.childElementCount) return;
    for (const task of this.page.tasks) {
      const cell = sprite.cells.get(task);
      if (!cell) continue;
      const scale = Math.min(1, ROW_PX / Math.max(cell.height, 1), (2 * ROW_PX) / Math.max(cell.width, 1));
      const crop = make("i", { "data-task": task });
      crop.style.width = `${cell.width * scale}px`;
      crop.style.height = `${cell.height * scale}px`;
      crop.style.backgroundImage = `url("${sprite.url}")`;
      crop.style.backgroundSize = `${sprite.width * scale}px ${sprite.height * scale}px`;
      crop.style.backgroundPosition = `${-cell.x * scale}px ${-cell.y * scale}px`;
      this.strip.append(crop);
    }
  }
}
