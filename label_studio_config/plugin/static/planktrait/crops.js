// The crops that are known so far, in the order of the gallery; the server is asked page by page.

import { getJson } from "./api.js";

export const PAGE = 120;
const KEPT_PAGES = 100;
const NEAR_PAGES = 40;

function fill(crop, row, seenAt) {
  crop.width = row.width_px || crop.width || 0;
  crop.height = row.height_px || crop.height || 0;
  crop.um = row.pixel_size_um || 0;
  crop.image = row.image;
  crop.sample = row.sample;
  crop.blind = row.blind;
  crop.suggestion = row.suggestion;
  crop.state = row.state;
  crop.answer = row.answer;
  crop.others = row.others;
  crop.thin = false;
  if (seenAt) crop.seenAt = seenAt;
}

/** Enough of a suggestion to accept it, or to say that it was on the screen. */
function essence(suggestion) {
  if (!suggestion) return null;
  const { prediction, label, confidence } = suggestion;
  return { prediction, label, confidence };
}

/** Events: `added` {from}, `reset`, `filled` {crops}, `failed` {error}. */
export class Crops extends EventTarget {
  list = [];
  pages = [];
  #byTask = new Map();
  #query = {};
  #wanted = null;
  #further = null;
  #next = null;
  #loading = null;
  #stop = new AbortController();
  done = true;

  /** Begin anew: `query` as for `gallery/page`, or a ranking [{task, similarity}] in its order.
   * An empty ranking shows nothing: asked about no tasks, the server would show any.
   * `further`, asked at the ranking's end, gives what is appended to it, until it gives nothing. */
  reset(query, ranking = null, further = null) {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.list = [];
    this.pages = [];
    this.#byTask = new Map();
    this.#query = query;
    this.#wanted = ranking;
    this.#further = further;
    this.#next = null;
    this.#loading = null;
    this.done = ranking?.length === 0;
    this.error = null;
    this.dispatchEvent(new Event("reset"));
    if (this.done) this.dispatchEvent(new CustomEvent("added", { detail: { from: 0 } }));
    return this.more();
  }

  find(task) {
    return this.#byTask.get(task);
  }

  get loading() {
    return this.#loading !== null;
  }

  /** The next page, once however often it is asked for. */
  more() {
    if (this.done || this.error) return this.#loading ?? Promise.resolve();
    this.#loading ??= this.#load(this.#stop.signal).finally(() => (this.#loading = null));
    return this.#loading;
  }

  retry() {
    this.error = null;
    return this.more();
  }

  async #load(signal) {
    try {
      if (this.#wanted && this.#next === this.#wanted.length) {
        const found = await this.#further();
        if (signal.aborted) return;
        this.#lengthen(found);
        if (this.done) return;
      }
      const answer = await getJson("gallery/page", this.#pageQuery(), signal);
      if (signal.aborted) return;
      this.#append(answer);
    } catch (error) {
      if (signal.aborted) return;
      this.error = error;
      this.dispatchEvent(new CustomEvent("failed", { detail: { error } }));
    }
  }

  /** What is in the ranking already would never end it. */
  #lengthen(found) {
    const known = new Set(this.#wanted.map((one) => one.task));
    const fresh = found.filter((one) => !known.has(one.task));
    this.#wanted.push(...fresh);
    if (fresh.length) return;
    this.done = true;
    this.dispatchEvent(new CustomEvent("added", { detail: { from: this.list.length } }));
  }

  #pageQuery() {
    if (!this.#wanted) return { ...this.#query, limit: PAGE, after: this.#next };
    const from = this.#next ?? 0;
    const tasks = this.#wanted.slice(from, from + PAGE).map((one) => one.task);
    return { ...this.#query, limit: PAGE, tasks: tasks.join(",") };
  }

  #append(answer) {
    const from = this.list.length;
    const page = { tasks: [], number: this.pages.length, first: from };
    for (const row of answer.crops) {
      if (this.#byTask.has(row.task)) continue;
      const crop = { task: row.task, page, index: this.list.length, gone: false };
      fill(crop, row, answer.seen_at);
      this.#byTask.set(row.task, crop);
      this.list.push(crop);
      page.tasks.push(row.task);
    }
    if (page.tasks.length) this.pages.push(page);
    if (this.#wanted) {
      const start = this.#next ?? 0;
      const asked = this.#wanted.slice(start, start + PAGE);
      const similarity = new Map(asked.map((one) => [one.task, one.similarity]));
      for (const task of page.tasks) this.#byTask.get(task).similarity = similarity.get(task);
      this.#next = Math.min(start + PAGE, this.#wanted.length);
      this.done = this.#next === this.#wanted.length && !this.#further;
    } else {
      this.#next = answer.next;
      this.done = !answer.next;
    }
    this.dispatchEvent(new CustomEvent("added", { detail: { from } }));
  }

  /** Take over what the server says about crops that are known; returns those. */
  update(rows, seenAt) {
    const changed = [];
    for (const row of rows) {
      const crop = this.#byTask.get(row.task);
      if (!crop) continue;
      fill(crop, row, seenAt);
      changed.push(crop);
    }
    return changed;
  }

  /** Ask again about these tasks, in any state: what others said is then seen. */
  async refresh(tasks) {
    const query = { control: this.#query.control, tasks: tasks.join(","), limit: PAGE };
    const answer = await getJson("gallery/page", query, this.#stop.signal);
    return this.update(answer.crops, answer.seen_at);
  }

  /** Of pages far from `near` only the sizes are kept, and which suggestion was on the screen. */
  trim(near) {
    if (this.pages.length <= KEPT_PAGES) return;
    for (const page of this.pages) {
      if (page.thin || Math.abs(page.number - near) < NEAR_PAGES) continue;
      page.thin = true;
      for (const task of page.tasks) {
        const crop = this.#byTask.get(task);
        crop.thin = true;
        crop.suggestion = essence(crop.suggestion);
        crop.image = crop.others = crop.answer = null;
      }
    }
  }

  /** Fetch again what `trim` dropped. */
  async thicken(page) {
    if (!page.thin || page.fetching) return;
    page.fetching = true;
    const signal = this.#stop.signal;
    try {
      const changed = await this.refresh(page.tasks);
      page.thin = false;
      if (!signal.aborted) {
        this.dispatchEvent(new CustomEvent("filled", { detail: { crops: changed } }));
      }
    } catch {
      // Asked for again at the next scroll.
    } finally {
      page.fetching = false;
    }
  }
}
