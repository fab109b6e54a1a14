// Clusters of images without annotations, a row each: seen at a glance, labelled as a whole.

import { getJson, postJson } from "./api.js";
import { announce, byId, make, plural, shown, whole } from "./dom.js";
import { Sprites } from "./sprites.js";

const ROW_PX = 64;
const TIER = 160;
const ROWS = 30;
const TASKS_A_PAGE = 200;
const MOST = 1000;
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
    this.all = answer.clusters ?? [];
    this.next = 0;
    this.list.replaceChildren();
    if (this.all.length) this.#more();
    else if (!working) this.#say("No clusters yet. They group images that look alike, from learned features, so that a whole group is judged at once.");
    if (working) setTimeout(() => this.load(), ASK_AGAIN_MS);
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

  async #tasks(cluster) {
    const tasks = [];
    let after = 0;
    while (after != null && tasks.length < MOST) {
      const page = await getJson(`clusters/${cluster.id}/tasks`, { after, limit: MOST });
      tasks.push(...page.tasks);
      after = page.next;
    }
    return tasks.slice(0, MOST);
  }

  async #open(cluster) {
    try {
      const tasks = await this.#tasks(cluster);
      this.open(tasks.map((task) => ({ task })), `Cluster of ${plural(cluster.size, "image")}`);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }

  /** As in the gallery: with the suggestions that are shown, and what others answered meanwhile. */
  async #label(cluster, label, row) {
    if (!label) return announce("Choose a label first.");
    let began = performance.now();
    row.classList.add("busy");
    const batches = [];
    let saved = 0;
    let conflicts = 0;
    try {
      const tasks = await this.#tasks(cluster);
      const control = this.view.get("control");
      for (let first = 0; first < tasks.length; first += TASKS_A_PAGE) {
        const some = tasks.slice(first, first + TASKS_A_PAGE);
        const page = await getJson("gallery/page", { control, tasks: some.join(","), limit: TASKS_A_PAGE });
        const waiting = page.crops.filter((crop) => ["suggested", "open"].includes(crop.state));
        if (!waiting.length) continue;
        const judgements = waiting.map((crop) => ({ task: crop.task, label, ...(crop.suggestion && { prediction: crop.suggestion.prediction }) }));
        const lead_time_s = (performance.now() - began) / 1000;
        began = performance.now(); // each batch has its own share of the time
        const answer = await postJson("judgements", { control, judgements, lead_time_s, seen_at: page.seen_at });
        if (answer.batch) batches.push(answer.batch);
        saved += answer.saved;
        conflicts += answer.conflicts.length;
      }
      announce(`${shown(label)}: ${plural(saved, "image")} saved.${conflicts ? ` ${plural(conflicts, "image")} had been answered by others meanwhile.` : ""}`, { tone: "good" });
    } catch (error) {
      announce(`${plural(saved, "image")} saved, then: ${error.message}`, { tone: "bad" });
    }
    row.classList.remove("busy");
    if (batches.length) this.#done(row, label, saved, batches);
    return undefined;
  }

  #done(row, label, saved, batches) {
    row.classList.add("done");
    const undo = make("button", { type: "button", onclick: () => this.#undo(row, batches) }, "Undo");
    row.querySelector(".cluster-actions").replaceChildren(make("span", {}, `✓ ${plural(saved, "image")}: ${shown(label)}`), undo);
  }

  async #undo(row, batches) {
    try {
      let undone = 0;
      for (const batch of batches) undone += (await postJson(`judgements/${batch}/undo`)).undone;
      announce(`${plural(undone, "judgement")} undone.`);
      byId("view-clusters").scrollTop = 0;
      await this.load();
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }
}
