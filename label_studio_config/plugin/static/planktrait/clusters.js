// Clusters of images that are left to judge, a row each: seen at a glance, labelled as a whole.

import { getJson, postJson } from "./api.js";
import { newKey, relabel, sendBatch, takeBack } from "./batches.js";
import { ClusterRow } from "./cluster-row.js";
import { announce, leadsTo, make, plural, shown, whole } from "./dom.js";
import { Stopwatch } from "./pace.js";
import { Sprites } from "./sprites.js";

const ROWS = 30;
const TASKS_A_PAGE = 200;
const TASKS_AT_ONCE = 2000;
const MOST_OPENED = 20_000;
const ANEW = 409;
const ASK_AGAIN_MS = 3000;
const ACTIVE = ["queued", "running"];
const WHAT = "They group images that look alike, from learned features, so that a whole group is judged at once.";

/** The tab "Clusters"; `labels()` are the names to choose from, `open(tasks, words)` shows some. */
export class Clusters {
  #rows = new Map(); // by sprite page: what is to be painted
  #labelled = new Map(); // by id: rows that were labelled here, and stay for their "Undo"
  #watch = new Stopwatch();
  #lastJudged = 0;

  constructor({ box, view, labels, open }) {
    Object.assign(this, { box, view, labels, open, all: [] });
    this.sprites = new Sprites();
    this.sprites.addEventListener("ready", ({ detail }) => this.#rows.get(detail.page)?.paint());
    this.list = make("div", { class: "clusters" });
    this.head = make("div", { class: "clusters-head" });
    box.replaceChildren(this.head, this.list);
    // Back from the gallery, or with another control: other images are left.
    view.addEventListener("change", () => view.get("tab") === "clusters" && this.load());
    this.load();
  }

  async load() {
    const control = this.view.get("control");
    const load = (this.loads = (this.loads ?? 0) + 1);
    let answer;
    try {
      answer = await getJson("clusters", { control });
    } catch (error) {
      this.list.replaceChildren();
      this.#say(error.status === 503 ? "Clusters need the ML backend, which does not answer." : error.message);
      return;
    }
    if (load !== this.loads) return;
    if (this.answer?.made_at !== answer.made_at || this.control !== control) this.#labelled.clear();
    this.control = control;
    this.answer = answer;
    if (this.#working) this.#loadWhenMade();
    const known = [...answer.clusters, ...[...this.#labelled.values()].map((row) => row.cluster)];
    this.all = [...new Map(known.map((one) => [one.id, one])).values()].sort((a, b) => a.id - b.id);
    this.#showAll();
  }

  get #working() {
    return ACTIVE.includes(this.answer.job?.state);
  }

  /** The rows stay as they are while the job runs. */
  #loadWhenMade() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const { jobs } = await getJson("jobs").catch(() => ({ jobs: [] }));
      const works = jobs.some((job) => job.key.startsWith("clusters ") && ACTIVE.includes(job.state));
      if (works) this.#loadWhenMade();
      else await this.load();
    }, ASK_AGAIN_MS);
  }

  #showAll() {
    const { scrollTop } = this.box;
    const wanted = Math.max(ROWS, this.next ?? 0);
    const { aside, done, made_at: madeAt } = this.answer;
    this.next = 0;
    this.#rows.clear();
    this.list.replaceChildren();
    this.#showHead();
    if (aside) this.list.append(this.#aside(aside));
    if (this.all.length) this.#more(wanted);
    else if (!this.#working && done) this.#say("All clusters are judged. Make them anew for the images that are left.");
    else if (!this.#working && madeAt) this.#say(`Nothing is left to judge in these clusters.${leadsTo(this.answer)}`);
    else if (!this.#working) this.#say(`No clusters yet. ${WHAT}`);
    this.box.scrollTop = scrollTop;
  }

  #say(words) {
    this.list.querySelector(".empty")?.remove();
    this.list.append(make("div", { class: "empty" }, make("h2", {}, "Clusters"), make("p", {}, words)));
  }

  #showHead() {
    const { made_at: madeAt, n_images: images, outliers, done } = this.answer;
    const ended = [...this.#labelled.values()].filter(({ work }) => !work.tasks.length).length;
    const words = [];
    if (madeAt) {
      const when = new Date(madeAt).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
      words.push(`${plural(this.all.length - ended, "cluster")} to judge${done + ended ? `, ${whole(done + ended)} done` : ""}`);
      words.push(`${whole(outliers)} of ${plural(images, "image")} aside as unlike the others`, `made ${when}`);
    }
    const start = make("button", { type: "button", class: madeAt ? "" : "primary", disabled: this.#working, onclick: () => this.#start() },
      this.#working ? "Being made …" : madeAt ? "Make anew" : "Make clusters");
    this.head.replaceChildren(make("span", {}, words.join(" · ")), make("span", { class: "push" }), start);
  }

  async #start() {
    try {
      await postJson("clusters", { control: this.view.get("control") });
      announce("Clusters are being made.");
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
    await this.load();
  }

  /** Further rows, above that of the outliers. */
  #more(count = ROWS) {
    this.list.querySelector(".more")?.remove();
    const some = this.all.slice(this.next, this.next + count);
    const added = some.map((cluster) => this.#labelled.get(cluster.id) ?? this.#row(cluster));
    this.next += count;
    const elements = added.map((row) => row.element);
    if (this.next < this.all.length) {
      elements.push(make("button", { type: "button", class: "more", onclick: () => this.#more() }, `${whole(this.all.length - this.next)} more`));
    }
    const last = this.list.querySelector(".aside");
    if (last) last.before(...elements);
    else this.list.append(...elements);
  }

  #row(cluster) {
    const choice = make("select", { "aria-label": `Label of cluster ${cluster.id}` },
      ...this.labels().map((name) => make("option", { value: name, selected: name === cluster.label }, shown(name))));
    if (!cluster.label) choice.selectedIndex = -1;
    const actions = [
      make("button", { type: "button", onclick: () => this.#open(cluster) }, "Open"),
      choice,
      make("button", { type: "button", class: "primary", onclick: () => this.#label(row, choice.value) }, `Label all ${whole(cluster.size)}`),
    ];
    const words = cluster.label ? `mostly suggested as ${shown(cluster.label)}` : "without suggestions";
    const row = this.#keep({ cluster: { ...cluster, seenAt: this.answer.seen_at }, of: `Cluster ${cluster.id}`, words, actions });
    return row;
  }

  #aside(aside) {
    const cluster = { ...aside, id: "outliers" };
    const open = make("button", { type: "button", onclick: () => this.#open(cluster) }, "Open");
    const row = this.#keep({ cluster, of: "Outliers", noun: "outlier", words: "unlike the others", actions: [open] });
    row.element.classList.add("aside");
    return row.element;
  }

  #keep(what) {
    const row = new ClusterRow({ ...what, root: this.box, sprites: this.sprites, watch: this.#watch });
    this.#rows.set(row.page, row);
    return row;
  }

  /** Those that are left; null where the clusters on the screen are old, and others are shown now. */
  async #tasks(cluster, most = Infinity) {
    const tasks = [];
    const query = { made_at: this.answer.made_at, control: this.control, limit: TASKS_AT_ONCE };
    try {
      for (let after = 0; after != null && tasks.length < most; ) {
        const page = await getJson(`clusters/${cluster.id}/tasks`, { ...query, after });
        tasks.push(...page.tasks);
        after = page.next;
      }
    } catch (error) {
      if (error.status !== ANEW) throw error;
      await this.load();
      announce("The clusters have been made anew meanwhile: nothing was done, these are the new ones.", { tone: "warn" });
      return null;
    }
    return tasks;
  }

  async #open(cluster) {
    try {
      const tasks = await this.#tasks(cluster, MOST_OPENED);
      const what = cluster.id === "outliers" ? plural(cluster.size, "outlier") : `Cluster of ${plural(cluster.size, "image")}`;
      if (tasks) this.open(tasks.map((task) => ({ task })), what);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }

  async #label(row, label) {
    if (!label) return announce("Choose a label first.");
    const { cluster } = row;
    const work = { keys: [], saved: 0, conflicts: 0, seenAt: cluster.seenAt, onScreen: row.suggestionsOnScreen() };
    const seconds = row.secondsSeen(this.#lastJudged);
    this.#lastJudged = this.#watch.seconds;
    row.element.classList.add("busy");
    try {
      work.tasks = await this.#tasks(cluster);
      work.judged = cluster.size - (work.tasks?.length ?? 0);
      work.secondsEach = seconds / Math.max(1, work.tasks?.length);
      if (work.tasks) await this.#labelTasks(row, label, work);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
    row.element.classList.remove("busy");
    return undefined;
  }

  /** What others answered meanwhile stays as it is. `work`: the tasks that are left, the keys of the
   * batches, what has come of them, what was on screen, and the seconds that each image has taken. */
  async #labelTasks(row, label, work) {
    const { control } = this;
    const judgedAt = new Date().toISOString();
    row.element.classList.add("busy");
    try {
      while (work.tasks.length) {
        const some = work.tasks.slice(0, TASKS_A_PAGE);
        const page = await getJson("gallery/page", { control, tasks: some.join(","), limit: TASKS_A_PAGE });
        const waiting = page.crops.filter((crop) => ["suggested", "open"].includes(crop.state));
        work.judged += page.crops.length - waiting.length;
        if (waiting.length) {
          const key = newKey();
          work.keys.push(key); // undone with the others, also if only its answer is lost
          const judgements = waiting.map(({ task }) => relabel({ task, suggestion: suggestionOf(work, task) }, label));
          const leadTime = work.secondsEach * waiting.length;
          const answer = await sendBatch({ key, control, judgements, leadTime, seenAt: work.seenAt, judgedAt });
          work.saved += answer.saved;
          work.conflicts += answer.conflicts.length;
        }
        work.tasks = work.tasks.slice(TASKS_A_PAGE);
        if (work.tasks.length) announce(`${shown(label)}: ${plural(work.saved, "image")} saved so far …`);
      }
      announce(`${shown(label)}: ${plural(work.saved, "image")} saved.${rest(work)}`, { tone: work.saved ? "good" : "warn" });
    } catch (error) {
      announce(`${plural(work.saved, "image")} saved, then: ${error.message}`, { tone: "bad" });
    }
    row.element.classList.remove("busy");
    if (work.keys.length || !work.tasks.length) this.#done(row, label, work);
  }

  #done(row, label, work) {
    const left = work.tasks.length;
    row.work = work;
    this.#labelled.set(row.cluster.id, row);
    row.element.classList.toggle("done", !left);
    const words = work.saved || left ? `${plural(work.saved, "image")}: ${shown(label)}` : "judged before";
    const said = make("span", {}, left ? words : `✓ ${words}`);
    const undo = make("button", { type: "button", onclick: () => this.#undo(row) }, "Undo");
    const again = make("button", { type: "button", class: "primary", onclick: () => this.#labelTasks(row, label, work) }, `Label the other ${whole(left)}`);
    row.actions.replaceChildren(said, ...(work.keys.length ? [undo] : []), ...(left ? [again] : []));
    this.#showHead();
  }

  async #undo(row) {
    try {
      let undone = 0;
      for (const key of row.work.keys) undone += (await takeBack(key)).undone;
      this.#labelled.delete(row.cluster.id);
      await this.load();
      announce(`${plural(undone, "judgement")} undone.`);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }
}

const suggestionOf = ({ onScreen }, task) => (onScreen.has(task) ? { prediction: onScreen.get(task) } : null);

/** Why fewer were saved than there were. */
function rest({ judged, conflicts }) {
  const before = judged > 0 ? ` ${plural(judged, "image")} had been judged before.` : "";
  const met = conflicts ? ` ${plural(conflicts, "image")} had been answered by others meanwhile.` : "";
  return before + met;
}
