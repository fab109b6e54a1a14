// The crop under the pointer, and what is suggested for it now.

import { address, getJson } from "./api.js";
import { choice } from "./card.js";
import { SIGNS } from "./cell.js";
import { make, shown } from "./dom.js";

const DELAY_MS = 110;
const GAP_PX = 12;
const KEPT = 200;
const MOST_PX = 160;

export class Hover {
  #task = null;
  #timer;
  #kept = new Map();

  /** `control()` names the control whose suggestions are shown. */
  constructor(stage, control) {
    Object.assign(this, { stage, control });
    this.box = make("div", { class: "card map-card", role: "tooltip", hidden: true });
    stage.append(this.box);
  }

  forget() {
    this.#kept.clear();
  }

  hide() {
    clearTimeout(this.#timer);
    this.#task = null;
    this.box.hidden = true;
  }

  /** At (x, y) of the stage. */
  show(task, x, y) {
    if (task !== this.#task) {
      clearTimeout(this.#timer);
      this.#task = task;
      this.box.hidden = true;
      this.#timer = setTimeout(() => this.#ask(task), DELAY_MS);
    }
    this.at = [x, y];
  }

  async #ask(task) {
    let row = this.#kept.get(task);
    try {
      row ??= await this.#fetch(task);
    } catch {
      return; // the next image that is pointed at is asked for again
    }
    if (task !== this.#task || !row) return;
    this.box.replaceChildren(row.picture, ...wordsOf(row.crop));
    this.box.hidden = false;
    this.#place();
  }

  async #fetch(task) {
    const picture = make("img", { alt: "", src: address("gallery/sprite", { tasks: task, most_px: MOST_PX }) });
    const [page] = await Promise.all([
      getJson("gallery/page", { control: this.control(), tasks: task, limit: 1 }),
      picture.decode(),
    ]);
    if (!page.crops.length) return null;
    const row = { picture, crop: page.crops[0] };
    this.#kept.set(task, row);
    if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
    return row;
  }

  #place() {
    const [x, y] = this.at;
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const { clientWidth, clientHeight } = this.stage;
    const left = x + GAP_PX + width <= clientWidth ? x + GAP_PX : Math.max(4, x - GAP_PX - width);
    const top = Math.min(Math.max(4, y - height / 2), clientHeight - height - 4);
    this.box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }
}

function wordsOf(crop) {
  const { suggestion, state } = crop;
  const words = suggestion
    ? [choice(suggestion.label, suggestion.confidence, "first")]
    : [make("p", { class: "choice first" }, crop.blind ? "Blind: never suggested" : "Not suggested")];
  if (suggestion?.second_label) words.push(choice(suggestion.second_label, suggestion.second_confidence, "second"));
  if (state !== "suggested" && state !== "open") {
    const { sign, text } = SIGNS[state];
    const answer = crop.answer ? `${text}: ${[crop.answer].flat().map(shown).join(", ")}` : text;
    words.push(make("p", { class: "state" }, make("span", { class: "sign", "data-state": state }, sign), answer));
  }
  words.push(make("p", { class: "facts" }, [crop.sample, `#${crop.task}`].filter(Boolean).join(" · ")));
  return words;
}
