// How large crops are shown: at one common scale, or all in one size; and the scale bar.

import { cropSize } from "./layout.js";
import { byId, remember } from "./dom.js";

const KEY = "planktrait-gallery-size";
const SIDE = 72;
const BAR = { least: 48, most: 120 };

function stored() {
  try {
    return JSON.parse(window.localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

/** Event: `change`. The zoom is a power of two: 0 shows a pixel of a typical image as one. */
export class Scale extends EventTarget {
  #um = 0;

  constructor() {
    super();
    const { zoom = 0, fixed = false, details = false } = stored();
    Object.assign(this, { zoom, fixed, details });
    byId("zoom").addEventListener("input", (event) => this.set({ zoom: +event.target.value }));
    byId("true-scale").addEventListener("click", () => this.set({ fixed: false }));
    byId("same-size").addEventListener("click", () => this.set({ fixed: true }));
    byId("details").addEventListener("click", () => this.set({ details: !this.details }));
    byId("mosaic").addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.show();
  }

  #wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    this.set({ zoom: this.zoom - Math.sign(event.deltaY) * 0.15 });
  }

  set(change) {
    Object.assign(this, change);
    this.zoom = Math.min(2.5, Math.max(-2, this.zoom));
    const { zoom, fixed, details } = this;
    remember(KEY, JSON.stringify({ zoom, fixed, details }));
    this.show();
    this.dispatchEvent(new Event("change"));
  }

  /** For `layout.js`; the first crops with a pixel size set what zoom 0 is, for the whole visit. */
  options(crops) {
    if (!this.#um) {
      const known = crops.slice(0, 200).map((crop) => crop.um).filter((um) => um > 0);
      known.sort((a, b) => a - b);
      this.#um = known[known.length >> 1] ?? 0;
      this.show();
    }
    const times = 2 ** this.zoom;
    const { fixed, details } = this;
    const micrometres = this.#um > 0;
    const scale = micrometres ? times / this.#um : times;
    return { fixed, details, size: SIDE * times, scale, micrometres, um: this.#um };
  }

  sizeOf(crop, options) {
    return cropSize(crop, options);
  }

  show() {
    byId("zoom").value = this.zoom;
    byId("true-scale").setAttribute("aria-pressed", String(!this.fixed));
    byId("same-size").setAttribute("aria-pressed", String(this.fixed));
    byId("details").setAttribute("aria-pressed", String(this.details));
    byId("mosaic").classList.toggle("detailed", this.details);
    const bar = byId("scale-bar");
    bar.hidden = this.fixed;
    const { length, pixels } = niceBar(2 ** this.zoom / (this.#um || 1));
    bar.firstElementChild.style.width = `${pixels}px`;
    bar.lastElementChild.textContent = this.#um ? inMicrometres(length) : `${length} px`;
    bar.setAttribute("aria-label", `Scale bar: ${bar.lastElementChild.textContent}`);
  }
}

/** A length of 1, 2 or 5 times a power of ten that is a handy bar at this many px a unit. */
export function niceBar(pixelsPerUnit) {
  let power = 10 ** Math.floor(Math.log10(BAR.least / pixelsPerUnit));
  for (;;) {
    for (const step of [1, 2, 5]) {
      const pixels = step * power * pixelsPerUnit;
      if (pixels >= BAR.least && pixels <= BAR.most) {
        return { length: Number((step * power).toPrecision(1)), pixels };
      }
      if (pixels > BAR.most) return { length: Number((step * power).toPrecision(1)), pixels };
    }
    power *= 10;
  }
}

const inMicrometres = (um) =>
  um >= 1e4 ? `${um / 1e4} cm` : um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
