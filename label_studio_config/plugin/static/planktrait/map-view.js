// The map as it is seen: points, legend, lasso, and what is chosen.

import { announce, make, plural } from "./dom.js";
import { Camera } from "./map-camera.js";
import { join, loadColours, loadPoints } from "./map-data.js";
import { Plot, pointSize } from "./map-gl.js";
import { Grid } from "./map-grid.js";
import { Hover } from "./map-hover.js";
import { Legend } from "./map-legend.js";
import { WAYS, entriesOf, faint, paletteOf } from "./map-palette.js";
import { Pointer } from "./map-pointer.js";

const KEY = "planktrait-map-colour";
const WORDS = { label: "suggested label", confidence: "confidence of the suggestion", state: "state" };
const REACH_PX = 7;
const SVG = "http://www.w3.org/2000/svg";

/** `order()`: the labels in the order of the config; `open(found, words, change)`: to the gallery. */
export class MapView {
  chosen = new Uint32Array(0);
  #outline = null;
  #frame = null;
  #old = true;
  #asked = 0;

  constructor({ view, order, open, tools, side }) {
    Object.assign(this, { view, order, open });
    this.by = window.localStorage.getItem(KEY) in WAYS ? window.localStorage.getItem(KEY) : "label";
    this.canvas = make("canvas", { class: "points", tabindex: "0", role: "application", "aria-roledescription": "map of images" });
    this.plot = new Plot(this.canvas);
    this.plot.onrestored = () => this.#soon();
    this.camera = new Camera();
    this.legend = new Legend();
    this.#build(tools, side);
    this.hover = new Hover(this.stage, () => view.get("control"));
    this.pointer = new Pointer(this.canvas, this.camera);
    this.#listen();
  }

  #build(tools, side) {
    const [drawn, outline, ring] = ["svg", "path", "circle"].map((name) => document.createElementNS(SVG, name));
    Object.assign(this, { outline, ring });
    drawn.setAttribute("class", "lasso");
    drawn.setAttribute("aria-hidden", "true");
    drawn.append(outline, ring);
    this.stage = make("div", { class: "stage map-stage" }, this.canvas, drawn);
    const button = (words, title, run, kind = "square") =>
      make("button", { type: "button", class: kind, title, "aria-label": title, onclick: run }, words);
    this.lassoButton = make("button", { type: "button", "aria-pressed": "false", title: "Draw round what you want to choose (L, or Shift and drag)", onclick: () => this.lasso() }, "Lasso", make("kbd", {}, "L"));
    tools.append(this.lassoButton,
      button("+", "Nearer (+)", () => this.zoom(1.5)), button("−", "Farther (−)", () => this.zoom(1 / 1.5)),
      button("All", "Show the whole map (0)", () => this.fit(), ""));
    this.openButton = make("button", { type: "button", class: "primary", onclick: () => this.openChosen() }, make("span", {}, "Open in gallery"), make("kbd", {}, "Enter"));
    this.clearButton = make("button", { type: "button", class: "plain", onclick: () => this.clear() }, "Clear", make("kbd", {}, "Esc"));
    this.said = make("span", { class: "selected" });
    this.bar = make("footer", { class: "actions map-bar", "aria-label": "What is chosen" }, this.said, this.openButton, this.clearButton);
    this.side = make("aside", { class: "side map-side", "aria-label": "Legend" }, side, this.legend.element);
    this.middle = make("section", { class: "middle", "aria-label": "Map" }, tools, this.stage, this.bar);
    this.#tell();
  }

  #listen() {
    const { pointer, legend } = this;
    pointer.addEventListener("moved", () => this.#moved());
    pointer.addEventListener("left", () => this.#leave());
    pointer.addEventListener("over", ({ detail }) => this.#point(detail.x, detail.y));
    pointer.addEventListener("click", ({ detail }) => this.#point(detail.x, detail.y));
    pointer.addEventListener("drawing", ({ detail }) => this.#outlineOf(detail.path));
    pointer.addEventListener("lasso", ({ detail }) => this.choose(detail.polygon));
    legend.addEventListener("way", ({ detail }) => this.colourBy(detail.by));
    legend.addEventListener("alone", () => {
      this.#colour();
      announce(legend.words ? `Seen alone: ${legend.words}.` : "All are shown.", { visible: false });
    });
    document.addEventListener("schemechange", () => this.joined && this.#legend());
    new ResizeObserver(() => this.#resize()).observe(this.stage);
  }

  /** Points and colours, anew. */
  async load() {
    const asked = ++this.#asked;
    const [points, colours] = await Promise.all([loadPoints(), loadColours(this.view.get("control"))]);
    if (asked !== this.#asked) return;
    this.points = points;
    this.grid = new Grid(points);
    this.plot.setPoints(points);
    this.chosen = new Uint32Array(0);
    this.#outline = null;
    this.#take(colours);
    this.#resize();
    this.fit();
    this.#tell();
  }

  /** What was suggested or answered meanwhile. */
  async refresh() {
    const asked = ++this.#asked;
    const colours = await loadColours(this.view.get("control"));
    if (asked === this.#asked && this.points) this.#take(colours);
  }

  #take(colours) {
    this.joined = join(this.points, colours);
    for (const i of this.chosen) this.joined.codes[4 * i + 3] = 1;
    this.plot.setCodes(this.joined.codes);
    this.hover.forget();
    this.#legend();
  }

  #legend() {
    this.legend.show(this.by, entriesOf(this.by, this.joined, this.order()));
    this.#colour();
  }

  #colour() {
    this.seen = this.legend.seen();
    this.plot.setPalette(paletteOf(this.by, this.legend.entries, this.legend.alone));
    const alone = this.legend.words ? `, ${this.legend.words} alone` : "";
    this.canvas.setAttribute("aria-label",
      `Map of ${plural(this.points.n, "image")}, coloured by ${WORDS[this.by]}${alone}. Alike lies beside alike. ` +
      "Arrow keys move, plus and minus zoom, A chooses what is in the window, question mark for help");
    this.#soon();
  }

  colourBy(by) {
    this.by = by;
    window.localStorage.setItem(KEY, by);
    this.#legend();
    announce(`Coloured by ${WORDS[by]}.`, { visible: false });
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height || !this.points) return;
    this.camera.resize(width, height, this.grid.bounds);
    this.#soon();
  }

  fit() {
    this.camera.fit(this.grid.bounds);
    this.#moved();
  }

  zoom(factor) {
    this.camera.zoomAt(this.camera.width / 2, this.camera.height / 2, factor);
    this.#moved();
  }

  /** By parts of the window. */
  pan(right, down) {
    this.camera.panBy(-right * this.camera.width, -down * this.camera.height);
    this.#moved();
  }

  #moved() {
    this.#leave();
    this.#soon();
  }

  /** What is on the screen is no longer true. */
  #soon() {
    this.#old = true;
    this.#next();
  }

  #next() {
    this.#frame ??= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = null;
    const { plot, camera, canvas } = this;
    if (!this.points) return;
    if (plot.isBusy) return this.#next();
    if (this.#old) {
      this.#old = false;
      plot.begin(camera, { by: WAYS[this.by], choosing: this.chosen.length > 0, faint: faint() });
      const [left, top] = camera.toMap(0, 0);
      const [right, bottom] = camera.toMap(camera.width, camera.height);
      canvas.dataset.window = [left, top, right, bottom].join(" ");
      if (this.#outline) this.#outlineOf(this.#outline.map(([x, y]) => camera.toScreen(x, y)), true);
    }
    plot.add();
    canvas.setAttribute("aria-busy", String(!plot.isWhole));
    if (!plot.isWhole) this.#next();
    return undefined;
  }

  get #code() {
    const { codes } = this.joined;
    const offset = WAYS[this.by];
    return (i) => codes[4 * i + offset];
  }

  #point(px, py) {
    const [x, y] = this.camera.toMap(px, py);
    const radius = Math.max(REACH_PX, pointSize(this.points.n, this.camera)) / this.camera.scale;
    const code = this.#code;
    const found = this.grid.nearest(x, y, radius, (i) => this.seen[code(i)]);
    if (found < 0) return this.#leave();
    const [cx, cy] = this.camera.toScreen(this.points.x[found], this.points.y[found]);
    const r = pointSize(this.points.n, this.camera) / 2 + 2.5;
    for (const [name, value] of Object.entries({ cx, cy, r })) this.ring.setAttribute(name, value.toFixed(1));
    return this.hover.show(this.points.task[found], px, py);
  }

  #leave() {
    this.ring.setAttribute("r", 0);
    this.hover.hide();
  }

  #outlineOf(path, closed = false) {
    const d = path.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    this.outline.setAttribute("d", d && closed ? `${d}Z` : d);
  }

  lasso(on = !this.pointer.lassoMode) {
    this.pointer.lassoMode = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.canvas.classList.toggle("lassoing", on);
    announce(on ? "Drag draws a lasso." : "Drag moves the map.", { visible: false });
  }

  chooseWindow() {
    const { width, height } = this.camera;
    this.choose([[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => this.camera.toMap(x, y)));
  }

  /** The points within a polygon of the map that are seen. */
  choose(polygon) {
    const code = this.#code;
    this.#mark(this.grid.inside(polygon, (i) => this.seen[code(i)]), polygon);
    const alone = this.legend.words ? ` (${this.legend.words} alone)` : "";
    announce(`${plural(this.chosen.length, "image")} chosen${alone}.`, { visible: false });
  }

  clear() {
    this.#mark(new Uint32Array(0), null);
    announce("Nothing is chosen.", { visible: false });
  }

  #mark(chosen, polygon) {
    const { codes } = this.joined;
    for (const i of this.chosen) codes[4 * i + 3] = 0;
    for (const i of chosen) codes[4 * i + 3] = 1;
    this.chosen = chosen;
    this.#outline = chosen.length ? polygon : null;
    this.#outlineOf([]);
    this.plot.setCodes(codes);
    this.#tell();
    this.#soon();
  }

  #tell() {
    const n = this.chosen.length;
    this.said.textContent = n ? plural(n, "image") : "Drag moves, the wheel zooms, Shift and drag draws a lasso";
    this.said.classList.toggle("hint", !n);
    this.openButton.hidden = this.clearButton.hidden = !n;
  }

  /** Escape: what is being drawn, then what is chosen, then the lasso, then what is seen alone. */
  escape() {
    if (this.pointer.cancel()) return;
    if (this.chosen.length) this.clear();
    else if (this.pointer.lassoMode) this.lasso(false);
    else if (this.legend.alone.size) this.legend.showAll();
  }

  /** All of them, from their middle outwards; if some are judged already, the gallery shows these too. */
  openChosen() {
    if (!this.chosen.length) return;
    const { codes, states } = this.joined;
    const toJudge = new Set(states.filter(({ name }) => name === "suggested" || name === "open").map(({ code }) => code));
    const judged = this.chosen.some((i) => !toJudge.has(codes[4 * i + 2]));
    const found = Array.from(this.chosen, (i) => ({ task: this.points.task[i] }));
    const alone = this.legend.words ? `, ${this.legend.words}` : "";
    this.open(found, `On the map${alone}`, { filters: {}, states: judged ? ["any"] : [] });
  }
}
