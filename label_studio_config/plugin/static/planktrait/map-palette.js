// The colours of the map: told apart by colour-blind people too, on a light and on a dark ground.

import { BINS, binOf, shareOf } from "./map-data.js";

const LABELS = {
  light: ["#0072b2", "#d55e00", "#009e73", "#b0539a", "#d99400", "#56b4e9", "#6e4a1c", "#4b3aa0"],
  dark: ["#3d9ae0", "#f0783a", "#1fc296", "#e08cc4", "#f2bb3f", "#a5dcff", "#b99a6b", "#a493f5"],
};
/** From unsure to sure, which stands out most from the ground. */
const SCALE = {
  light: ["#ecc45c", "#b89b6a", "#7d7f7a", "#41628f", "#00255e"],
  dark: ["#48516b", "#5f6a7d", "#8f8a72", "#c9b450", "#ffea46"],
};
const STATES = {
  light: { suggested: "#7f9bd1", open: "#bbb6aa", accepted: "#008060", mine: "#3b2f93", others: "#c47f00", conflicting: "#c2410c" },
  dark: { suggested: "#5876bd", open: "#57544d", accepted: "#2fc79b", mine: "#b3a3ff", others: "#f2bb3f", conflicting: "#ff7a4d" },
};
const REST = { light: "#8d887d", dark: "#8a857b" };
const NONE = { light: "#c4bfb3", dark: "#4f4c46" };
/** What is grey among others, and is seen alone. */
const INK = { light: "#262522", dark: "#f9f8f6" };
const FAINT = { light: "#d6d2c8", dark: "#33312c" };

export const WAYS = { label: 0, confidence: 1, state: 2 };
const MOST_COLOURED = LABELS.light.length;

const theme = () => (document.documentElement.dataset.colorScheme === "dark" ? "dark" : "light");
const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const hex = (rgb) => `#${rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;

function onScale(share) {
  const scale = SCALE[theme()];
  const place = Math.min(1, Math.max(0, share)) * (scale.length - 1);
  const first = Math.min(scale.length - 2, Math.floor(place));
  const [from, to] = [parts(scale[first]), parts(scale[first + 1])];
  return hex(from.map((part, i) => part + (to[i] - part) * (place - first)));
}

export const faint = () => parts(FAINT[theme()]);

/** The colours of the most frequent labels, by name: in the order of the config, so that they stay. */
export function labelColours(labels, order) {
  const place = new Map(order.map((name, number) => [name, number]));
  const most = labels.slice(0, MOST_COLOURED).map(({ name }) => name);
  most.sort((a, b) => (place.get(a) ?? Infinity) - (place.get(b) ?? Infinity) || String(a).localeCompare(b));
  return new Map(most.map((name, number) => [name, LABELS[theme()][number]]));
}

/** Of an entry, with the keys of those that are seen alone. */
export const colourOf = (entry, alone) => (entry.rest && alone.has(entry.key) ? INK[theme()] : entry.colour);

/** `[{key, name, colour, count, codes}]`: what a colour means, and the bytes of its points. */
export function entriesOf(by, joined, order) {
  if (by === "state") {
    return joined.states.map(({ name, code, count }) => ({ key: name, state: name, colour: STATES[theme()][name], count, codes: [code] }));
  }
  const none = { key: "none", name: "Not suggested", colour: NONE[theme()], count: joined.none };
  if (by === "confidence") {
    const bins = [...joined.bins].map((count, bin) => ({
      key: `bin-${bin}`,
      name: `${(100 * bin) / BINS}–${(100 * (bin + 1)) / BINS} %`,
      colour: onScale((bin + 0.5) / BINS),
      count,
      codes: Array.from({ length: 255 }, (_, code) => code).filter((code) => binOf(code) === bin),
    }));
    const unknown = joined.bins.reduce((rest, count) => rest - count, joined.none + joined.labels.reduce((sum, one) => sum + one.count, 0));
    return [...bins.reverse(), { ...none, name: "Not known", count: unknown, codes: [255] }];
  }
  const colours = labelColours(joined.labels, order);
  const labels = joined.labels.map(({ name, code, count }) => ({
    key: name ?? "rest", label: name, name: name ?? "Other labels", count, codes: [code],
    colour: colours.get(name) ?? REST[theme()], rest: !colours.has(name),
  }));
  return [...labels, { ...none, codes: [0] }];
}

/** 256 colours for the points; where some are seen alone, the alpha of the others is 0. */
export function paletteOf(by, entries, alone) {
  const palette = new Uint8Array(4 * 256);
  for (const entry of entries) {
    for (const code of entry.codes) {
      const colour = by === "confidence" && code !== 255 ? onScale(shareOf(code)) : colourOf(entry, alone);
      palette.set([...parts(colour), !alone.size || alone.has(entry.key) ? 255 : 0], 4 * code);
    }
  }
  return palette;
}
