// Clusters of images without annotations, a row each: seen at a glance, labelled as a whole.

import { getJson, postJson } from "./api.js";
import { newKey, relabel, sendBatch, takeBack } from "./batches.js";
import { announce, byId, make, plural, shown, whole } from "./dom.js";
import { Sprites } from "./sprites.js";

const ROW_PX = 64;
const TIER = 160;
const ROWS = 30;
const TASKS_A_PAGE = 200;
const TASKS_AT_ONCE = 2000;
const ANEW = 409;
const ASK_AGAIN_MS = 3000;
const ACTIVE = ["queued", "running"];

/** The tab "Clusters"; `labels()` are the names to choose from, `open(tasks, words)` shows some. */
export class Clusters {
  constructor({ box, view, labels, open }) {
    Object.assign(this, { box, view, labels, open });
    this.sprites = new Sprites();
    this.sprites.addEventListener("ready", ({ detail }) => this.#paint(detail.page));
    this.list = make("div", { class: "clusters" });
    this.head = make("div", { class: "clusters-head" });
    box.replaceChildren(this.head, this.list);
    this.load();
  }

  async load() {
    let answer;
    try {
      answer = await getJson("clusters");
    } catch (error) {
      this.#say(error.status === 503 ? "Clusters need the ML backend, which does not answer." : error.message);
      return;
    }
    const working = ACTIVE.includes(answer.job?.state);
    this.#showHead(answer, working);
    if (working) this.#loadWhenMade();
    this.all = answer.clusters ?? [];
    this.madeAt = answer.made_at;
    this.next = 0;
    this.list.replaceChildren();
    if (this.all.length) this.#more();
    else if (!working) this.#say("No clusters yet. They group images that look alike, from learned features, so that a whole group is judged at once.");
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

  #say(words) {
    this.list.replaceChildren(make("div", { class: "empty" }, make("h2", {}, "Clusters"), make("p", {}, words)));
  }

  #showHead(answer, working) {
    const made = answer.made_at ? new Date(answer.made_at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "";
    const words = answer.clusters?.length
      ? `${plural(answer.clusters.length, "cluster")} of ${plural(answer.n_images, "image")}, ${whole(answer.outliers)} aside as unlike the others · made ${made}`
      : "";
    const start = make("button", { type: "button", class: answer.clusters?.length ? "" : "primary", disabled: working, onclick: () => this.#start() },
      working ? "Being made …" : answer.clusters?.length ? "Make anew" : "Make clusters");
    this.head.replaceChildren(make("span", {}, words), make("span", { class: "push" }), start);
  }

  async #start() {
    try {
      await postJson("clusters");
      announce("Clusters are being made.");
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
    await this.load();
  }

  #more() {
    this.list.querySelector(".more")?.remove();
    for (const cluster of this.all.slice(this.next, this.next + ROWS)) this.list.append(this.#row(cluster));
    this.next += ROWS;
    if (this.next < this.all.length) {
      this.list.append(make("button", { type: "button", class: "more", onclick: () => this.#more() }, `${whole(this.all.length - this.next)} more`));
    }
  }

  #row(cluster) {
    const choice = make("select", { "aria-label": `Label of cluster ${cluster.id}` },
      ...this.labels().map((name) => make("option", { value: name, selected: name === cluster.label }, shown(name))));
    if (!cluster.label) choice.selectedIndex = -1;
    const words = cluster.label ? `mostly suggested as ${shown(cluster.label)}` : "without suggestions";
    const strip = make("div", { class: "strip", role: "img", "aria-label": `The ${cluster.tasks.length} most typical images, ${words}` });
    const row = make("section", { class: "cluster", "aria-label": `Cluster ${cluster.id}, ${plural(cluster.size, "image")}` },
      make("div", { class: "cluster-facts" }, make("b", {}, plural(cluster.size, "image")), make("span", {}, words)),
      strip,
      make("div", { class: "cluster-actions" },
        make("button", { type: "button", onclick: () => this.#open(cluster) }, "Open"),
        choice,
        make("button", { type: "button", class: "primary", onclick: () => this.#label(cluster, choice.value, row) }, `Label all ${whole(cluster.size)}`)));
    const page = { number: `cluster-${cluster.id}`, tasks: cluster.tasks, strip };
    if (cluster.tasks.length) {
      new IntersectionObserver((seen, observer) => {
        if (!seen.some((one) => one.isIntersecting)) return;
        observer.disconnect();
        this.#paint(page);
      }, { root: this.box, rootMargin: "300px" }).observe(strip);
    }
    return row;
  }

  #paint(page) {
    const sprite = this.sprites.get(page, TIER);
    if (!sprite || page.strip.childElementCount) return;
    for (const task of page.tasks) {
      const cell = sprite.cells.get(task);
      if (!cell) continue;
      const scale = Math.min(1, ROW_PX / Math.max(cell.height, 1), (2 * ROW_PX) / Math.max(cell.width, 1));
      const crop = make("i", {});
      crop.style.width = `${cell.width * scale}px`;
      crop.style.height = `${cell.height * scale}px`;
      crop.style.backgroundImage = `url("${sprite.url}")`;
      crop.style.backgroundSize = `${sprite.width * scale}px ${sprite.height * scale}px`;
      crop.style.backgroundPosition = `${-cell.x * scale}px ${-cell.y * scale}px`;
      page.strip.append(crop);
    }
  }

  /** All of them; null where the clusters on the screen are old, and others are shown now. */
  async #tasks(cluster) {
    const tasks = [];
    const query = { made_at: this.madeAt, limit: TASKS_AT_ONCE };
    try {
      for (let after = 0; after != null; ) {
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
      const tasks = await this.#tasks(cluster);
      if (tasks) this.open(tasks.map((task) => ({ task })), `Cluster of ${plural(cluster.size, "image")}`);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }

  async #label(cluster, label, row) {
    if (!label) return announce("Choose a label first.");
    row.classList.add("busy");
    try {
      const tasks = await this.#tasks(cluster);
      if (tasks) await this.#labelTasks(row, label, { tasks, keys: [], saved: 0, conflicts: 0 });
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
    row.classList.remove("busy");
    return undefined;
  }

  /** As in the gallery: with the suggestions that are shown, and what others answered meanwhile.
   * `work`: the tasks that are left, the keys of the batches, and what has come of them. */
  async #labelTasks(row, label, work) {
    const control = this.view.get("control");
    const judgedAt = new Date().toISOString();
    let began = performance.now();
    row.classList.add("busy");
    try {
      while (work.tasks.length) {
        const some = work.tasks.slice(0, TASKS_A_PAGE);
        const page = await getJson("gallery/page", { control, tasks: some.join(","), limit: TASKS_A_PAGE });
        const waiting = page.crops.filter((crop) => ["suggested", "open"].includes(crop.state));
        const leadTime = (performance.now() - began) / 1000;
        if (waiting.length) {
          const key = newKey();
          began = performance.now(); // each batch has its own share of the time
          work.keys.push(key); // undone with the others, also if only its answer is lost
          const answer = await sendBatch({ key, control, judgements: waiting.map((crop) => relabel(crop, label)), leadTime, seenAt: page.seen_at, judgedAt });
          work.saved += answer.saved;
          work.conflicts += answer.conflicts.length;
        }
        work.tasks = work.tasks.slice(TASKS_A_PAGE);
        if (work.tasks.length) announce(`${shown(label)}: ${plural(work.saved, "image")} saved so far …`);
      }
      const met = work.conflicts ? ` ${plural(work.conflicts, "image")} had been answered by others meanwhile.` : "";
      announce(`${shown(label)}: ${plural(work.saved, "image")} saved.${met}`, { tone: "good" });
    } catch (error) {
      announce(`${plural(work.saved, "image")} saved, then: ${error.message}`, { tone: "bad" });
    }
    row.classList.remove("busy");
    if (work.keys.length) this.#done(row, label, work);
  }

  #done(row, label, work) {
    const left = work.tasks.length;
    row.classList.toggle("done", !left);
    const said = make("span", {}, `${left ? "" : "✓ "}${plural(work.saved, "image")}: ${shown(label)}`);
    const undo = make("button", { type: "button", onclick: () => this.#undo(work.keys) }, "Undo");
    const rest = make("button", { type: "button", class: "primary", onclick: () => this.#labelTasks(row, label, work) }, `Label the other ${whole(left)}`);
    row.querySelector(".cluster-actions").replaceChildren(said, undo, ...(left ? [rest] : []));
  }

  async #undo(keys) {
    try {
      let undone = 0;
      for (const key of keys) undone += (await takeBack(key)).undone;
      announce(`${plural(undone, "judgement")} undone.`);
      byId("view-clusters").scrollTop = 0;
      await this.load();
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }
}
