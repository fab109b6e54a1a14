// The tab "Map": whether there is a map, the job that draws it, and its keys.

import { getJson, postJson } from "./api.js";
import { announce, make, plural, whole } from "./dom.js";
import { NoWebGl } from "./map-gl.js";
import { MapView } from "./map-view.js";

const ASK_AGAIN_MS = 2000;
const ACTIVE = ["queued", "running"];
const PAN = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
const ZOOM = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, "−": 1 / 1.5 };
const WHAT = "A map lays all images on one plane, alike beside alike, from learned features: groups, mistakes and what is rare are seen at a glance.";

export const MAP_KEYS = {
  "Move about": [
    [["Wheel", "Pinch"], "Nearer, farther, about the pointer"],
    [["+", "−"], "Nearer, farther"],
    [["Drag", "← ↑ → ↓"], "Move the map"],
    [["0"], "Show the whole map"],
  ],
  Choose: [
    [["Shift+Drag"], "Draw a lasso round images"],
    [["L"], "Lasso without Shift, or not"],
    [["A"], "All images in the window"],
    [["Enter"], "Open what is chosen in the gallery"],
    [["Esc"], "Choose nothing; then show all colours"],
  ],
  "See": [
    [["Point"], "The image, and what is suggested for it"],
    [["Click"], "An entry of the legend: see it alone; Ctrl: besides others"],
  ],
};

export class MapTab {
  #timer;

  constructor({ box, view, info, order, open }) {
    Object.assign(this, { box, view, info, order, open });
    this.control = view.get("control");
    view.addEventListener("change", () => this.#shown());
    document.addEventListener("keydown", (event) => this.#key(event));
    // After a click the keyboard belongs to the map again.
    box.addEventListener("click", ({ detail, target }) => {
      if (detail > 0 && target.closest("button")) this.map?.canvas.focus({ preventScroll: true });
    });
    this.load();
  }

  /** What there is now; asks again while a job runs. */
  async load() {
    clearTimeout(this.#timer);
    let state;
    try {
      state = await getJson("map/state");
    } catch (error) {
      const why = error.status === 503 ? "The map needs the ML backend, which does not answer." : error.message;
      if (this.map) this.#note(why);
      else this.#say([make("p", {}, why), this.#button("Try again", () => this.load(), "")]);
      return;
    }
    const working = ACTIVE.includes(state.job?.state);
    if (working) this.#timer = setTimeout(() => this.load(), ASK_AGAIN_MS);
    if (!state.n) this.#none(state, working);
    else if (await this.#show(state)) this.#head(state, working);
  }

  #say(words) {
    this.map = null;
    this.box.classList.remove("map");
    this.box.replaceChildren(make("div", { class: "empty" }, make("h2", {}, "Map"), ...words));
  }

  #button(words, run, kind = "primary") {
    return make("button", { type: "button", class: kind, onclick: run }, words);
  }

  #none({ job }, working) {
    const words = [make("p", {}, WHAT)];
    if (job?.state === "failed") words.push(make("p", { class: "error" }, `It could not be drawn: ${job.error}`));
    if (working) words.push(...progressOf(job));
    else words.push(this.#button("Draw the map", () => this.#start()));
    this.#say(words);
  }

  /** Whether the map is on the screen. */
  async #show(state) {
    if (this.map && this.made === state.made_at) return true;
    const first = !this.map;
    try {
      if (first) this.#build();
      await this.map.load();
    } catch (error) {
      const again = error instanceof NoWebGl ? null : this.#button("Try again", () => this.load(), "");
      this.#say([make("p", {}, error.message), again]);
      return false;
    }
    this.loading.remove();
    this.made = state.made_at;
    announce(`Map of ${plural(this.map.points.n, "image")}.`, { visible: false });
    return true;
  }

  #build() {
    this.facts = make("span", { class: "facts" });
    this.noted = make("span", { class: "map-note" });
    this.again = this.#button("Draw again", () => this.#start(), "");
    this.loading = make("div", { class: "loading" }, make("span"), "Loading the map …");
    const tools = make("div", { class: "tools" },
      make("div", { class: "what" }, make("h2", {}, "Map"), this.facts), this.noted, this.again, make("span", { class: "push" }));
    const { controls } = this.info;
    this.select = make("select", { onchange: ({ target }) => this.view.set({ control: target.value, label: null, open: false, all: false, like: [] }) },
      ...controls.map(({ name, title }) => make("option", { value: name }, title || name)));
    this.select.value = this.control;
    const side = make("label", { class: "control", hidden: controls.length < 2 }, make("span", {}, "Control"), this.select);
    this.map = new MapView({ view: this.view, order: this.order, open: this.open, tools, side });
    this.map.stage.append(this.loading);
    this.box.classList.add("map");
    this.box.replaceChildren(this.map.side, this.map.middle);
  }

  #head({ made_at, new: fresh, job }, working) {
    const made = new Date(made_at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
    this.facts.textContent = `${plural(this.map.points.n, "image")} · ${made}`;
    this.again.disabled = working;
    this.again.textContent = working ? "Being drawn …" : "Draw again";
    this.again.classList.toggle("primary", fresh > 0 && !working);
    if (working) this.#note(wordsOf(job));
    else if (job?.state === "failed") this.#note(`It could not be drawn again: ${job.error}`);
    else this.#note(fresh ? `${plural(fresh, "new image is", "new images are")} not on it yet` : "");
  }

  #note(words) {
    this.noted.textContent = this.noted.title = words;
  }

  async #start() {
    try {
      await postJson("map");
      announce("The map is being drawn.");
    } catch (error) {
      announce(error.message, { tone: "bad" });
      if (this.map) this.#note(error.message);
      else this.#say([make("p", {}, WHAT), make("p", { class: "error" }, error.message), this.#button("Draw the map", () => this.#start())]);
      return;
    }
    await this.load();
  }

  /** Chosen again, or with another control: colours may be others than they were. */
  async #shown() {
    if (this.view.get("tab") !== "map" || !this.map?.points) return;
    this.select.value = this.view.get("control");
    try {
      await this.map.refresh();
    } catch (error) {
      this.#note(error.message);
    }
  }

  #key(event) {
    const { key, target, ctrlKey, metaKey, altKey } = event;
    if (this.box.hidden || !this.map?.points || event.defaultPrevented || ctrlKey || metaKey || altKey) return;
    if (document.querySelector("dialog[open]") || target.closest("input, select, textarea, [role=tablist]")) return;
    const { map } = this;
    const letters = { l: () => map.lasso(), a: () => map.chooseWindow(), 0: () => map.fit(), escape: () => map.escape() };
    if (key in PAN) map.pan(...PAN[key]);
    else if (key in ZOOM) map.zoom(ZOOM[key]);
    else if (key.toLowerCase() in letters) letters[key.toLowerCase()]();
    else if (key === "Enter" && !target.closest("button, a")) map.openChosen();
    else return;
    event.preventDefault();
  }
}

function wordsOf({ progress }) {
  if (!progress) return "Being drawn: waiting for its turn";
  const { stage, done, total, message } = progress;
  return `Being drawn: ${stage}${total ? ` ${whole(done)} of ${whole(total)}` : ""}${message ? `, ${message}` : ""}`;
}

function progressOf(job) {
  const share = job.progress?.share;
  const words = wordsOf(job);
  return [make("p", { role: "status" }, words), make("progress", { max: 1, value: share ?? false, "aria-label": words })];
}
