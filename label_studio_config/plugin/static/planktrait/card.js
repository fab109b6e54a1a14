// The words about one crop, beside it while the mouse or the keyboard is on it.

import { SIGNS, stateOf } from "./cell.js";
import { byId, make, percent, shown } from "./dom.js";

const DELAY_MS = 160;
const GAP_PX = 6;

export class Card {
  #timer;
  #crop = null;

  constructor(mosaic, selection, scale) {
    Object.assign(this, { mosaic, selection, scale });
    this.box = byId("card");
    mosaic.box.addEventListener("pointerover", (event) => this.#over(event));
    mosaic.box.addEventListener("pointerleave", () => this.hide());
    mosaic.box.addEventListener("pointerdown", () => this.hide());
    document.addEventListener("keydown", () => this.hide(), { capture: true });
    mosaic.box.addEventListener("scroll", () => this.hide(), { passive: true });
    mosaic.addEventListener("scrolled", () => this.#crop?.gone && this.hide());
    selection.addEventListener("active", () => {
      if (mosaic.box.matches(":focus-visible")) this.#soon(selection.active);
    });
  }

  #over(event) {
    const cell = event.target.closest(".cell");
    const crop = cell && this.mosaic.crops.find(Number(cell.dataset.task));
    if (crop && event.buttons === 0) this.#soon(crop);
    else this.hide();
  }

  #soon(crop) {
    if (crop === this.#crop) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.show(crop), this.#crop ? 0 : DELAY_MS);
  }

  hide() {
    clearTimeout(this.#timer);
    this.#crop = null;
    this.box.hidden = true;
  }

  show(crop) {
    const cell = this.mosaic.cellOf(crop);
    if (!cell || crop.gone || crop.leaving || crop.thin) return this.hide();
    this.#crop = crop;
    this.box.replaceChildren(...this.#words(crop));
    this.box.hidden = false;
    const at = cell.firstChild.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const room = this.mosaic.box.getBoundingClientRect();
    const below = at.bottom + GAP_PX + height <= room.bottom;
    const top = below ? at.bottom + GAP_PX : Math.max(room.top, at.top - GAP_PX - height);
    const middle = at.left + at.width / 2 - width / 2;
    const left = Math.min(Math.max(room.left + 4, middle), room.right - width - 4);
    this.box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    return undefined;
  }

  #words(crop) {
    const { suggestion } = crop;
    const words = [];
    if (suggestion) {
      words.push(choice(suggestion.label, suggestion.confidence, "first"));
      if (suggestion.second_label) {
        words.push(choice(suggestion.second_label, suggestion.second_confidence, "second"));
      }
    } else words.push(make("p", { class: "choice first" }, crop.blind ? "Blind: never suggested" : "Not suggested"));
    const state = stateOf(crop);
    const { sign, text } = SIGNS[state] ?? { sign: "", text: state };
    if (state !== "suggested" && state !== "open") {
      const answer = crop.unsaved?.label ?? (crop.answer ? [crop.answer].flat().join(", ") : "");
      words.push(
        make(
          "p",
          { class: "state" },
          make("span", { class: "sign", "data-state": state }, sign),
          answer ? `${text}: ${shown(answer)}` : text,
        ),
      );
    }
    for (const other of crop.others ?? []) {
      words.push(make("p", { class: "other" }, `${other.email}: ${[other.label].flat().map(shown).join(", ")}`));
    }
    words.push(make("p", { class: "facts" }, facts(crop, this.mosaic).join(" · ")));
    return words;
  }
}

/** A label, its share in words and as a bar. */
export function choice(label, share, kind) {
  const bar = make("i");
  bar.style.width = `${100 * (share ?? 0)}%`;
  return make(
    "p",
    { class: `choice ${kind}` },
    make("span", {}, shown(label)),
    make("b", {}, percent(share)),
    make("span", { class: "meter" }, bar),
  );
}

function facts(crop, mosaic) {
  const said = [];
  if (crop.similarity != null) said.push(`similarity ${crop.similarity.toFixed(2)}`);
  if (crop.suggestion?.novelty != null) said.push(`novelty ${crop.suggestion.novelty.toFixed(2)}`);
  const side = Math.max(crop.width, crop.height);
  if (crop.um) {
    const length = side * crop.um;
    said.push(length >= 1000 ? `${(length / 1000).toFixed(1)} mm` : `${Math.round(length)} µm`);
  } else if (side) said.push(`${Math.round(crop.width)} × ${Math.round(crop.height)} px`);
  if (mosaic.options_.micrometres && !crop.um) said.push("scale not known");
  if (mosaic.cellOf(crop)?.hasAttribute("data-shrunk")) said.push("shown smaller than at scale");
  if (crop.sample) said.push(crop.sample);
  said.push(`#${crop.task}`);
  return said;
}
