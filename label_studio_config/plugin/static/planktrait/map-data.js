// The map's points and what they are coloured by, as typed arrays; joined by task.

import { getBytes } from "./api.js";

const GOLDEN = 0.6180339887498949;
/** A byte holds so many labels; what is rarer shares the last one. */
const MOST_LABELS = 254;
const OTHERS = 255;
export const BINS = 10;
const SURE = 254;
const NOT_KNOWN = 255;

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

/** The i-th of n in an order whose every beginning is spread over all of them. */
function scattered(n) {
  let stride = Math.max(1, Math.round(n * GOLDEN));
  while (gcd(n, stride) !== 1) stride += 1;
  const order = new Uint32Array(n);
  for (let i = 0, at = 0; i < n; i += 1, at = (at + stride) % n) order[i] = at;
  return order;
}

/** `{n, x, y, task}`; drawing only the first so many points shows a fair sample of the map. */
export async function loadPoints() {
  const bytes = await getBytes("map", { binary: 1 });
  const n = bytes.byteLength / 12;
  const from = [new Float32Array(bytes, 0, n), new Float32Array(bytes, 4 * n, n), new Uint32Array(bytes, 8 * n, n)];
  const order = scattered(n);
  const [x, y, task] = from.map((values) => {
    const to = new values.constructor(n);
    for (let i = 0; i < n; i += 1) to[i] = values[order[i]];
    return to;
  });
  return { n, x, y, task };
}

/** `{labels, states, task, label, confidence, state, …}`, ascending by task. */
export async function loadColours(control) {
  const bytes = await getBytes("map/colours", { control });
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const { n } = header;
  const start = 4 + length;
  return {
    ...header,
    task: new Uint32Array(bytes, start, n),
    label: new Uint16Array(bytes, start + 4 * n, n),
    confidence: new Uint8Array(bytes, start + 6 * n, n),
    state: new Uint8Array(bytes, start + 7 * n, n),
  };
}

function find(tasks, task) {
  let low = 0;
  let high = tasks.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (tasks[middle] < task) low = middle + 1;
    else if (tasks[middle] > task) high = middle - 1;
    else return middle;
  }
  return -1;
}

const byCount = (counts) => [...counts.keys()].sort((a, b) => counts[b] - counts[a] || a - b);

/**
 * Four bytes a point: its label (0: none), confidence, state, and whether it is chosen.
 * `{codes, labels: [{name, code, count}], bins: counts, states: [{name, code, count}], none}`.
 */
export function join(points, colours) {
  const { n, task } = points;
  const at = new Int32Array(n);
  const counts = new Uint32Array(colours.labels.length + 1);
  for (let i = 0; i < n; i += 1) {
    at[i] = find(colours.task, task[i]);
    counts[at[i] < 0 ? 0 : colours.label[at[i]]] += 1;
  }
  const ranked = byCount(counts).filter((number) => number > 0 && counts[number] > 0);
  const code = new Uint8Array(counts.length).fill(OTHERS);
  code[0] = 0;
  ranked.slice(0, MOST_LABELS).forEach((number, rank) => (code[number] = rank + 1));
  const open = colours.states.indexOf("open");
  const bins = new Uint32Array(BINS);
  const states = new Uint32Array(colours.states.length);
  const codes = new Uint8Array(4 * n);
  for (let i = 0; i < n; i += 1) {
    const row = at[i];
    const confidence = row < 0 ? NOT_KNOWN : colours.confidence[row];
    const state = row < 0 ? open : colours.state[row];
    codes[4 * i] = row < 0 ? 0 : code[colours.label[row]];
    codes[4 * i + 1] = confidence;
    codes[4 * i + 2] = state;
    states[state] += 1;
    if (confidence !== NOT_KNOWN) bins[binOf(confidence)] += 1;
  }
  const labels = ranked.slice(0, MOST_LABELS).map((number) => ({
    name: colours.labels[number - 1], code: code[number], count: counts[number],
  }));
  const rest = ranked.slice(MOST_LABELS).reduce((sum, number) => sum + counts[number], 0);
  if (rest) labels.push({ name: null, code: OTHERS, count: rest });
  return {
    codes, labels, bins, none: counts[0],
    states: colours.states.map((name, number) => ({ name, code: number, count: states[number] })),
  };
}

export const shareOf = (confidence) => confidence / SURE;
export const binOf = (confidence) => Math.min(BINS - 1, Math.floor(shareOf(confidence) * BINS));
