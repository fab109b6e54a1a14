// One crop on screen: its picture, a thin bar for the confidence, a sign for its state, words.

import { make, percent, shown } from "./dom.js";

/** Each state has a colour (gallery.css) and a sign. */
export const SIGNS = {
  suggested: { sign: "", text: "suggested" },
  open: { sign: "○", text: "no suggestion, nobody answered" },
  accepted: { sign: "✓", text: "accepted by you" },
  mine: { sign: "✎", text: "your own answer" },
  others: { sign: "●", text: "answered by others" },
  conflicting: { sign: "≠", text: "answers differ" },
  unsaved: { sign: "↻", text: "not saved yet" },
};

const asList = (labels) => (labels == null ? [] : [labels].flat());

export function stateOf(crop) {
  return crop.unsaved ? "unsaved" : crop.conflict ? "conflicting" : crop.state;
}

/** Who said what meanwhile, or why else a judgement was not saved. */
export function whatHappened({ by, label, why }) {
  return by ? `${by} said ${shown(label)}` : why;
}

/** What a screen reader says about a crop. */
export function describe(crop) {
  if (crop.thin) return `Image ${crop.task}`;
  const said = [];
  const suggestion = crop.suggestion;
  if (suggestion) said.push(`${shown(suggestion.label)}, ${percent(suggestion.confidence)}`);
  else said.push("Not suggested");
  said.push(SIGNS[stateOf(crop)]?.text ?? crop.state);
  if (crop.unsaved) said.push(shown(crop.unsaved.label));
  else if (crop.answer) said.push(asList(crop.answer).map(shown).join(", "));
  if (crop.conflict) said.push(whatHappened(crop.conflict));
  if (crop.blind) said.push("blind");
  said.push(`image ${crop.task}`);
  return said.join(", ");
}

/** An element for a crop; `used` is one whose crop has left the window. */
export function makeCell(crop, used) {
  const element = used ?? newCell();
  element.className = "cell";
  element.dataset.task = crop.task;
  element.id = `crop-${crop.task}`;
  element.removeAttribute("title");
  delete element.firstChild.firstChild.dataset.painted;
  return element;
}

function newCell() {
  const element = make("div", { class: "cell", role: "gridcell" });
  const picture = make(
    "div",
    { class: "crop" },
    make("span", { class: "picture", "aria-hidden": "true" }),
    make("span", { class: "bar", "aria-hidden": "true" }, make("i")),
    make("span", { class: "sign", "aria-hidden": "true" }),
  );
  element.append(picture, make("div", { class: "caption", "aria-hidden": "true" }));
  return element;
}

/** Place and words; `at` is a cell of `rowCells`. */
export function updateCell(element, crop, at, { details }) {
  element.style.transform = `translateX(${at.x}px)`;
  element.style.width = `${at.width}px`;
  const [picture, caption] = element.children;
  const left = (at.width - at.size.width) >> 1;
  const above = (at.height - at.size.height) >> 1;
  picture.style.margin = `${Math.max(0, above)}px 0 0 ${Math.max(0, left)}px`;
  picture.style.width = `${at.size.width}px`;
  picture.style.height = `${at.size.height}px`;
  const state = stateOf(crop) ?? "";
  element.dataset.state = state;
  element.toggleAttribute("data-shrunk", at.size.shrunk > 1);
  element.setAttribute("aria-label", describe(crop));
  const [, bar, sign] = picture.children;
  sign.textContent = SIGNS[state]?.sign ?? "";
  bar.hidden = !crop.suggestion;
  if (crop.suggestion) bar.firstChild.style.width = `${100 * crop.suggestion.confidence}%`;
  writeCaption(caption, crop, details);
}

function writeCaption(caption, crop, details) {
  const [first, ...rest] = captionOf(crop, details);
  caption.hidden = !first;
  if (!first) return;
  caption.replaceChildren(make("b", {}, first), ...rest.map((line) => make("span", {}, line)));
  caption.title = [first, ...rest].join(" · ");
}

function captionOf(crop, details) {
  if (crop.unsaved) return ["Not saved yet", shown(crop.unsaved.label)];
  if (crop.conflict) {
    const { by, label, why } = crop.conflict;
    return by ? [`${by.split("@")[0]} said`, shown(label)] : ["Not saved", why];
  }
  if (!details || crop.thin) return [];
  const sample = crop.sample || `#${crop.task}`;
  if (crop.answer) return [asList(crop.answer).map(shown).join(", "), "by you", sample];
  const suggestion = crop.suggestion;
  if (!suggestion) return [crop.blind ? "Blind" : "Not suggested", sample];
  const first = `${percent(suggestion.confidence)} ${shown(suggestion.label)}`;
  if (!suggestion.second_label) return [first, sample];
  const second = `${percent(suggestion.second_confidence)} ${shown(suggestion.second_label)}`;
  return [first, second, sample];
}

/** Show the crop's part of its page's sprite; the element's size must be set. */
export function paintCell(element, crop, sprite) {
  const at = sprite.cells.get(crop.task);
  if (!at) return;
  const { style: box, firstChild: picture } = element.firstChild;
  const width = parseFloat(box.width);
  const height = parseFloat(box.height);
  // An enlarged edge would be mixed with what lies beside it in the sprite.
  const edge = Math.max(0, 0.5 - (0.5 * at.width) / width);
  const across = width / (at.width - 2 * edge);
  const down = height / (at.height - 2 * edge);
  const key = `${sprite.url} ${across} ${down}`;
  if (picture.dataset.painted === key) return;
  picture.dataset.painted = key;
  picture.style.backgroundImage = `url("${sprite.url}")`;
  picture.style.backgroundSize = `${sprite.width * across}px ${sprite.height * down}px`;
  picture.style.backgroundPosition = `${-(at.x + edge) * across}px ${-(at.y + edge) * down}px`;
  element.classList.add("painted");
  if (at.problem) {
    crop.problem = at.problem;
    element.title = at.problem;
  }
}
