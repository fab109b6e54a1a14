// The window on the crops: only rows near it are in the page, the others are a height.

import { makeCell, paintCell, updateCell } from "./cell.js";
import { layRows, rowAt, rowCells, rowOf } from "./layout.js";
import { make } from "./dom.js";
import { tierFor } from "./sprites.js";

const GAP = 2;
const SEEN_SHARE = 0.7;
const USUAL_SHARE = 0.34;
const MOST_SHARE = 0.85;
const MOST_FREE = 300;
const FADE_MS = 150;
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

/** Events: `scrolled` (what is in view has changed), `drawn` (crops of the window have pictures). */
export class Mosaic extends EventTarget {
  rows = [];
  options_ = {};
  #cells = new Map();
  #rowElements = new Map();
  #free = [];
  #seen = { top: 0, height: 0 };
  #frame = 0;

  constructor(box, crops, sprites, scale) {
    super();
    Object.assign(this, { box, crops, sprites, scale });
    this.sheet = make("div", { class: "sheet", role: "presentation" });
    box.append(this.sheet);
    box.addEventListener("scroll", () => this.schedule(), { passive: true });
    new ResizeObserver(() => this.layOut({ keepPlace: true })).observe(box);
    crops.addEventListener("reset", () => this.#clear());
    crops.addEventListener("added", (event) => this.#extend(event.detail.from));
    crops.addEventListener("filled", () => this.refresh());
    sprites.addEventListener("ready", (event) => this.#learnSizes(event.detail.page));
    scale.addEventListener("change", () => this.layOut({ keepPlace: true }));
  }

  get options() {
    const width = Math.max(120, this.box.clientWidth - 24);
    const scale = this.scale.options(this.crops.list);
    // One long crop must not push all others out of the window.
    const share = Math.min(MOST_SHARE, Math.max(USUAL_SHARE, USUAL_SHARE * 2 ** this.scale.zoom));
    const mostHeight = Math.max(120, this.box.clientHeight * share);
    return { ...scale, width, gap: GAP, mostWidth: width * MOST_SHARE, mostHeight };
  }

  #clear() {
    this.sprites.reset();
    this.rows = [];
    this.#cells.forEach((cell) => cell.remove());
    this.#rowElements.forEach((row) => row.remove());
    this.#cells.clear();
    this.#rowElements.clear();
    this.sheet.style.height = "0px";
    this.box.scrollTop = 0;
  }

  /** New crops at the end: the last row is laid anew, nothing above it moves. */
  #extend(from) {
    if (from === 0) this.options_ = this.options;
    this.#layFrom(Math.max(0, this.rows.length - 1));
    this.schedule();
  }

  #layFrom(keep) {
    const options = this.options_;
    const last = this.rows[keep - 1];
    // All of them from the very first crop: it may have been gone, and be back.
    const from = keep > 0 ? this.rows[keep].start : 0;
    const y = last ? last.y + last.height + GAP : 0;
    this.rows.length = keep;
    for (const row of layRows(this.crops.list, from, y, options)) this.rows.push(row);
    for (const [number, row] of this.#rowElements) {
      if (number >= keep) {
        row.remove();
        this.#rowElements.delete(number);
      }
    }
    this.box.setAttribute("aria-rowcount", this.crops.done ? this.rows.length : -1);
    const end = this.rows[this.rows.length - 1];
    this.sheet.style.height = `${end ? end.y + end.height : 0}px`;
  }

  /** All rows anew. `keepPlace`: the first crop in view stays where it is. */
  layOut({ keepPlace = false, place = this.place() } = {}) {
    this.options_ = this.options;
    this.#layFrom(0);
    if (keepPlace && place) this.#return(place);
    this.render();
  }

  /** The first row in view: a crop in it, and how far its top is from the window's. */
  place() {
    const row = this.rows[rowAt(this.rows, this.box.scrollTop + 1)];
    return row ? { index: row.start, offset: row.y - this.box.scrollTop } : null;
  }

  #return({ index, offset }) {
    const row = this.rows[Math.min(rowOf(this.rows, index), this.rows.length - 1)];
    if (row) this.box.scrollTop = Math.max(0, row.y - Math.max(offset, -row.height / 2));
  }

  /** Crops fade, leave their places, and the next ones are there. */
  async remove(crops) {
    for (const crop of crops) this.#cells.get(crop.task)?.classList.add("leaving");
    if (!still.matches) await new Promise((done) => setTimeout(done, FADE_MS));
    const place = this.place();
    for (const crop of crops) if (crop.leaving) crop.gone = true;
    this.layOut({ keepPlace: true, place: place && { ...place, offset: Math.max(0, place.offset) } });
  }

  /** Crops are back, or have something to say: lay the rows anew where they are. */
  restore(crops, { show = false } = {}) {
    for (const crop of crops) {
      crop.gone = crop.leaving = false;
      this.#cells.get(crop.task)?.classList.remove("leaving");
    }
    this.layOut({ keepPlace: true });
    if (show && crops.length) this.scrollTo(Math.min(...crops.map((crop) => crop.index)));
  }

  schedule() {
    this.#frame ||= requestAnimationFrame(() => this.render());
  }

  /** Redraw words and signs, not places. */
  refresh() {
    this.#rowElements.forEach((row) => (row.stale = true));
    this.render();
  }

  render() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    // Read before anything is written: else the browser lays out the page each time.
    const { scrollTop: top, clientHeight: height } = this.box;
    this.#seen = { top, height };
    const from = rowAt(this.rows, top - height);
    const to = Math.min(this.rows.length, rowAt(this.rows, top + 2 * height) + 1);
    const used = new Set();
    for (let number = from; number < to; number++) this.#renderRow(number, used);
    for (const [number, row] of this.#rowElements) {
      if (number >= from && number < to) continue;
      row.remove();
      this.#rowElements.delete(number);
    }
    for (const [task, cell] of this.#cells) {
      if (used.has(task)) continue;
      cell.remove();
      this.#cells.delete(task);
      if (this.#free.length < MOST_FREE) this.#free.push(cell);
    }
    this.#markCut(from, to);
    this.#fetchAhead(to);
    this.dispatchEvent(new Event("scrolled"));
  }

  #renderRow(number, used) {
    const row = this.rows[number];
    let element = this.#rowElements.get(number);
    const fresh = !element;
    if (fresh) {
      element = make("div", { class: "row", role: "row", "aria-rowindex": number + 1 });
      const below = this.#rowElements.get(number + 1);
      this.#rowElements.set(number, element);
      // In the order in which they are read.
      this.sheet.insertBefore(element, below ?? null);
    }
    const place = `translateY(${row.y}px)`;
    if (element.style.transform !== place) element.style.transform = place;
    const height = `${row.height}px`;
    if (element.style.height !== height) element.style.height = height;
    for (const at of rowCells(this.crops.list, row, this.options_)) {
      const crop = this.crops.list[at.index];
      used.add(crop.task);
      let cell = this.#cells.get(crop.task);
      const moved = fresh || element.stale || !cell || cell.parentElement !== element;
      if (!cell) {
        cell = makeCell(crop, this.#free.pop());
        this.#cells.set(crop.task, cell);
        this.dispatchEvent(new CustomEvent("cell", { detail: { cell, crop } }));
      }
      if (moved) {
        if (cell.parentElement !== element) element.append(cell);
        updateCell(cell, crop, at, this.options_);
      }
      if (crop.page.thin) this.crops.thicken(crop.page);
      const sprite = this.#sprite(crop.page);
      if (sprite) paintCell(cell, crop, sprite);
    }
    element.stale = false;
  }

  #sprite(page) {
    const options = this.options_;
    const key = `${options.fixed} ${options.scale} ${options.size} ${options.mostHeight}`;
    if (page.tierKey !== key) {
      page.tierKey = key;
      const ratio = window.devicePixelRatio || 1;
      page.tier = tierFor(page.tasks.map((task) => this.#sides(task, ratio)));
    }
    return this.sprites.get(page, page.tier);
  }

  #sides(task, ratio) {
    const crop = this.crops.find(task);
    const size = this.scale.sizeOf(crop, this.options_);
    const native = Math.max(crop.width, crop.height);
    return { onScreen: Math.max(size.width, size.height) * ratio, native };
  }

  /** Rows that are cut by the window's edge look it: they are not accepted with the page. */
  #markCut(from, to) {
    for (let number = from; number < to; number++) {
      const cut = !this.#isSeen(this.rows[number]);
      this.#rowElements.get(number)?.classList.toggle("cut", cut);
    }
  }

  #isSeen(row) {
    const { top, height } = this.#seen;
    const from = Math.max(row.y, top);
    const to = Math.min(row.y + row.height, top + height);
    return to - from >= SEEN_SHARE * Math.min(row.height, height);
  }

  /** The crops of the rows that are seen (nearly) whole. */
  inView() {
    const seen = [];
    const { top, height } = this.#seen;
    const to = top + height;
    for (let number = rowAt(this.rows, top); number < this.rows.length; number++) {
      const row = this.rows[number];
      if (row.y > to) break;
      if (!this.#isSeen(row)) continue;
      for (let index = row.start; index < row.end; index++) {
        if (!this.crops.list[index].gone) seen.push(this.crops.list[index]);
      }
    }
    return seen;
  }

  #fetchAhead(to) {
    const last = this.rows[to - 1];
    const near = last ? this.crops.list[last.start].page.number : 0;
    this.crops.trim(near);
    // The page after the last one in the window, and its picture, before they are needed.
    const ahead = this.crops.pages[near + 1];
    if (ahead && !ahead.thin) this.#sprite(ahead);
    const below = this.rows.length ? this.rows[this.rows.length - 1] : { y: 0, height: 0 };
    const { top, height } = this.#seen;
    const left = below.y + below.height - top - height;
    const unjudged = this.crops.pages.length - near <= 1;
    if (!this.crops.done && (unjudged || left < 2 * height)) this.crops.more();
  }

  #learnSizes(page) {
    const sprite = this.sprites.peek(page);
    let learned = false;
    for (const task of page.tasks) {
      const crop = this.crops.find(task);
      const at = sprite?.cells.get(task);
      if (!crop || !at || (crop.width && crop.height)) continue;
      crop.width = at.width * (at.shrunk || 1);
      crop.height = at.height * (at.shrunk || 1);
      learned = true;
    }
    if (learned) this.layOut({ keepPlace: true });
    else this.schedule();
  }

  cellOf(crop) {
    return this.#cells.get(crop.task) ?? null;
  }

  /** Bring the row of crops[index] into the window, as little as needed. */
  scrollTo(index) {
    const row = this.rows[rowOf(this.rows, index)];
    if (!row) return;
    const { scrollTop: top, clientHeight: height } = this.box;
    if (row.y < top) this.box.scrollTop = row.y;
    else if (row.y + row.height > top + height) this.box.scrollTop = row.y + row.height - height;
    this.render();
  }
}
