// What is selected, by mouse and by keyboard, and which crop the keyboard is at.

import { rowAt, rowCells, rowOf } from "./layout.js";
import { make } from "./dom.js";

const DRAG_PX = 6;
const EDGE_PX = 36;

/** Events: `change`, `open` {crop} (a double click), `active`. */
export class Selection extends EventTarget {
  selected = new Set();
  active = null;
  #anchor = null;
  #press = null;

  constructor(mosaic) {
    super();
    this.mosaic = mosaic;
    this.crops = mosaic.crops;
    this.band = make("div", { class: "band", hidden: true });
    mosaic.sheet.append(this.band);
    mosaic.addEventListener("cell", ({ detail }) => this.#mark(detail.cell, detail.crop));
    this.crops.addEventListener("reset", () => this.#forget());
    const box = mosaic.box;
    box.addEventListener("pointerdown", (event) => this.#down(event));
    box.addEventListener("pointermove", (event) => this.#move(event));
    box.addEventListener("pointerup", (event) => this.#up(event));
    box.addEventListener("pointercancel", () => this.#endBand());
    box.addEventListener("dblclick", (event) => {
      const crop = this.#cropAt(event);
      if (crop) this.dispatchEvent(new CustomEvent("open", { detail: { crop } }));
    });
  }

  get size() {
    return this.selected.size;
  }

  /** In the gallery's order. */
  get list() {
    return [...this.selected].sort((a, b) => a.index - b.index);
  }

  #forget() {
    this.selected.clear();
    this.active = this.#anchor = null;
    this.#changed();
  }

  clear() {
    if (this.selected.size) this.replace([]);
  }

  replace(crops) {
    const before = this.selected;
    this.selected = new Set(crops);
    for (const crop of before) if (!this.selected.has(crop)) this.#remark(crop);
    for (const crop of this.selected) if (!before.has(crop)) this.#remark(crop);
    this.#changed();
  }

  /** Judged crops are not selected any more; the keyboard goes on at the next one left. */
  drop(crops) {
    const dropped = new Set(crops);
    this.replace([...this.selected].filter((crop) => !dropped.has(crop)));
    if (this.active && dropped.has(this.active)) {
      const from = this.active.index;
      const rest = (crop) => !crop.gone && !dropped.has(crop);
      this.setActive(this.crops.list.slice(from).find(rest) ?? null, { scroll: false });
    }
  }

  toggle(crop) {
    const next = new Set(this.selected);
    if (!next.delete(crop)) next.add(crop);
    this.#anchor = crop;
    this.replace(next);
  }

  /** From where the selection began to this crop; `add`: to what is selected besides. */
  extend(crop, { add = false } = {}) {
    const anchor = this.#anchor && !this.#anchor.gone ? this.#anchor : (this.active ?? crop);
    this.#anchor = anchor;
    const [from, to] = [anchor.index, crop.index].sort((a, b) => a - b);
    const between = this.crops.list.slice(from, to + 1).filter((one) => !one.gone);
    this.replace(add ? [...this.selected, ...between] : between);
  }

  setActive(crop, { scroll = true } = {}) {
    const before = this.active;
    this.active = crop;
    if (before) this.#remark(before);
    const box = this.mosaic.box;
    if (!crop) return box.removeAttribute("aria-activedescendant");
    if (scroll) this.mosaic.scrollTo(crop.index);
    this.#remark(crop);
    box.setAttribute("aria-activedescendant", `crop-${crop.task}`);
    this.dispatchEvent(new Event("active"));
  }

  /** An arrow key: one crop to the side, or to the nearest one in the row above or below. */
  step(direction, { extend = false } = {}) {
    const from = this.active && !this.active.gone ? this.active : null;
    const next = from ? this.#neighbour(from, direction) : this.mosaic.inView()[0];
    if (!next) return;
    if (extend && from) this.#anchor ??= from;
    this.setActive(next);
    if (extend) this.extend(next);
    else this.#anchor = next;
  }

  #neighbour(crop, direction) {
    const list = this.crops.list;
    if (direction === "left" || direction === "right") {
      const by = direction === "left" ? -1 : 1;
      let index = crop.index + by;
      while (list[index]?.gone) index += by;
      return list[index];
    }
    const rows = this.mosaic.rows;
    const at = rowOf(rows, crop.index);
    const row = rows[at + (direction === "up" ? -1 : 1)];
    if (!row) return null;
    const centre = (cell) => cell.x + cell.width / 2;
    const options = this.mosaic.options_;
    const mine = rowCells(list, rows[at], options).find((cell) => cell.index === crop.index);
    const cells = rowCells(list, row, options);
    const distance = (cell) => Math.abs(centre(cell) - centre(mine));
    return list[cells.reduce((a, b) => (distance(b) < distance(a) ? b : a)).index];
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #remark(crop) {
    const cell = this.mosaic.cellOf(crop);
    if (cell) this.#mark(cell, crop);
  }

  #mark(cell, crop) {
    const chosen = this.selected.has(crop);
    cell.classList.toggle("selected", chosen);
    cell.setAttribute("aria-selected", String(chosen));
    cell.classList.toggle("active", crop === this.active);
  }

  #cropAt(event) {
    const cell = event.target.closest?.(".cell");
    return cell ? this.crops.find(Number(cell.dataset.task)) : null;
  }

  #point(event) {
    const box = this.mosaic.sheet.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #down(event) {
    const box = this.mosaic.box;
    const onScrollbar = event.clientX > box.getBoundingClientRect().left + box.clientWidth;
    if (event.button !== 0 || onScrollbar) return;
    const keep = event.ctrlKey || event.metaKey || event.shiftKey ? [...this.selected] : [];
    this.#press = { from: this.#point(event), at: event, crop: this.#cropAt(event), keep };
  }

  #move(event) {
    const press = this.#press;
    if (!press) return;
    const far = Math.hypot(event.clientX - press.at.clientX, event.clientY - press.at.clientY);
    if (!press.banding && far < DRAG_PX) return;
    if (!press.banding) {
      press.banding = true;
      this.mosaic.box.setPointerCapture(event.pointerId);
      press.timer = setInterval(() => this.#scrollAtEdge(), 30);
    }
    press.last = event;
    this.#drawBand();
  }

  #scrollAtEdge() {
    const { last } = this.#press;
    const box = this.mosaic.box.getBoundingClientRect();
    const above = box.top + EDGE_PX - last.clientY;
    const below = last.clientY - (box.bottom - EDGE_PX);
    const by = above > 0 ? -above : below > 0 ? below : 0;
    if (!by) return;
    this.mosaic.box.scrollTop += by / 2;
    this.#drawBand();
  }

  #drawBand() {
    const { from, last, keep } = this.#press;
    const to = this.#point(last);
    const [left, right] = [from.x, to.x].sort((a, b) => a - b);
    const [top, bottom] = [from.y, to.y].sort((a, b) => a - b);
    this.band.hidden = false;
    Object.assign(this.band.style, {
      transform: `translate(${left}px, ${top}px)`,
      width: `${right - left}px`,
      height: `${bottom - top}px`,
    });
    this.replace([...keep, ...this.#within(left, right, top, bottom)]);
  }

  #within(left, right, top, bottom) {
    const { rows, options_: options } = this.mosaic;
    const found = [];
    for (let number = rowAt(rows, top); number < rows.length; number++) {
      if (rows[number].y > bottom) break;
      for (const cell of rowCells(this.crops.list, rows[number], options)) {
        if (cell.x <= right && cell.x + cell.width >= left) found.push(this.crops.list[cell.index]);
      }
    }
    return found;
  }

  #up(event) {
    const press = this.#press;
    this.#endBand();
    if (!press || press.banding) return;
    const { crop } = press;
    this.mosaic.box.focus({ preventScroll: true });
    if (!crop) return this.clear();
    this.setActive(crop, { scroll: false });
    if (event.shiftKey) return this.extend(crop, { add: event.ctrlKey || event.metaKey });
    if (event.ctrlKey || event.metaKey) return this.toggle(crop);
    this.#anchor = crop;
    this.replace(this.selected.has(crop) && this.size === 1 ? [] : [crop]);
  }

  #endBand() {
    clearInterval(this.#press?.timer);
    this.#press = null;
    this.band.hidden = true;
  }
}
