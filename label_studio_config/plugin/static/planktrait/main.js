// The gallery: everything is made here once, and joined.

import { Actions } from "./actions.js";
import { PROJECT, getJson } from "./api.js";
import { Card } from "./card.js";
import { Clusters } from "./clusters.js";
import { Crops } from "./crops.js";
import { announce, byId, make, plural, shown, whole } from "./dom.js";
import { Empty } from "./empty.js";
import { Filters, chip } from "./filters.js";
import { helpOfGallery } from "./gallery-help.js";
import { Help } from "./help.js";
import { Judging } from "./judging.js";
import { Keys } from "./keys.js";
import { Labels } from "./labels.js";
import { MapTab } from "./map-tab.js";
import { Mosaic } from "./mosaic.js";
import { NextOrder } from "./next.js";
import { Pace } from "./pace.js";
import { Scale } from "./scale.js";
import { Selection } from "./selection.js";
import { evenly, nearestTo, nearestToImage } from "./similar.js";
import { Sprites } from "./sprites.js";
import { Tabs } from "./tabs.js";
import { showTheme } from "./theme.js";
import { TypeAhead } from "./typeahead.js";
import { View } from "./view.js";

class Gallery {
  #similar = null;
  #asked = 0;
  #firstDrawn = false;

  async start() {
    showTheme();
    this.view = new View();
    try {
      this.info = await getJson("gallery");
    } catch (error) {
      byId("empty").replaceChildren(make("h2", {}, "The gallery does not open"), make("p", {}, error.message));
      byId("empty").hidden = false;
      byId("loading").hidden = true;
      return;
    }
    this.#join();
    if (!this.info.complete) this.#awaitIndex();
    await this.#load({});
    if (this.info.complete) this.#mendIndex();
  }

  /** A large project is read bit by bit: what is there is shown meanwhile. */
  async #awaitIndex() {
    for (;;) {
      let index;
      try {
        index = await getJson("gallery/index");
      } catch {
        return;
      }
      this.info.has_images ||= index.tasks > 0;
      this.info.has_suggestions ||= index.suggestions > 0;
      await this.labels.load().catch(() => {});
      if (index.complete) {
        announce(`All ${whole(index.tasks)} images are read.`);
        return;
      }
      announce(`Reading the project: ${whole(index.tasks)} images so far.`);
      await new Promise((done) => setTimeout(done, 2000));
    }
  }

  /** To compare the index with all tasks takes a moment: not before the first images are there. */
  async #mendIndex() {
    const { mended } = await getJson("gallery/index").catch(() => ({ mended: 0 }));
    if (mended) await this.#load({});
  }

  #join() {
    const { info, view } = this;
    if (!this.control) view.set({ control: info.control }, { quiet: true });
    byId("project").textContent = document.title = info.project.title;
    document.title = `Gallery · ${info.project.title}`;
    this.crops = new Crops();
    this.scale = new Scale();
    this.mosaic = new Mosaic(byId("mosaic"), this.crops, new Sprites(), this.scale);
    this.selection = new Selection(this.mosaic);
    this.pace = new Pace(info.user.id);
    const { crops, mosaic, selection, pace } = this;
    this.judging = new Judging({ mosaic, crops, selection, view, pace, user: info.user });
    this.labels = new Labels(view);
    this.next = new NextOrder(() => this.#load({ order: "next" }));
    this.filters = new Filters(view, info);
    this.typeahead = new TypeAhead({
      labels: () => this.answers,
      count: () => selection.size,
      choose: (label) => this.assignOrShow(label),
      leave: () => mosaic.box.focus({ preventScroll: true }),
    });
    this.keys = new Keys({ ...this.#bindings(), selection, mosaic, typeahead: this.typeahead });
    this.help = new Help(() => helpOfGallery(this.keys));
    this.actions = new Actions({ judging: this.judging, selection, mosaic, keys: this.keys });
    this.empty = new Empty({ crops, mosaic, labels: this.labels, view, info, similar: () => this.#similar });
    this.card = new Card(mosaic, selection, this.scale);
    Tabs.offer("clusters", (box) => new Clusters({
      box,
      view,
      labels: () => this.answers.map((label) => label.name),
      open: (found, words) => this.showTasks(found, words),
    }));
    Tabs.offer("map", (box) => new MapTab({
      box,
      view,
      info,
      order: () => this.answers.map((label) => label.name),
      open: (found, words, change) => this.showTasks(found, words, change),
    }));
    this.tabs = new Tabs(view);
    this.#listen();
    this.#showControls();
  }

  get control() {
    return this.info.controls.find((control) => control.name === this.view.get("control"));
  }

  /** All labels of the control, those that say "not assessable" last. */
  get answers() {
    const { labels, not_assessable: rest } = this.control;
    const known = new Set(labels.map((label) => label.name));
    return [...labels, ...rest.filter((name) => !known.has(name)).map((name) => ({ name }))];
  }

  #bindings() {
    const { selection, mosaic, scale, judging } = this;
    const commands = {
      a: { run: () => judging.accept() },
      s: { run: () => scale.set({ fixed: !scale.fixed }) },
      d: { run: () => scale.set({ details: !scale.details }) },
      m: { run: () => this.moreLikeThis() },
    };
    const act = {
      accept: () => judging.accept(),
      assign: (label) => judging.assign(label),
      undo: () => judging.undo(),
      selectInView: () => selection.replace(mosaic.inView()),
      open: () => this.openTask(selection.active ?? selection.list[0]),
      toggle: () => selection.active && selection.toggle(selection.active),
      escape: () => (selection.size ? selection.clear() : judging.dismissConflicts()),
      turn: (by) => (mosaic.box.scrollTop += by * mosaic.box.clientHeight * 0.9),
      edge: (first) => (mosaic.box.scrollTop = first ? 0 : mosaic.box.scrollHeight),
      help: () => this.help.open(),
      label: (by) => this.labels.step(by),
      zoom: (by) => scale.set({ zoom: scale.zoom + by }),
    };
    const hotkeys = () =>
      new Map(
        this.answers
          .filter((label) => label.hotkey)
          .map((label) => [label.hotkey.toLowerCase(), label.name]),
      );
    return { commands, act, hotkeys };
  }

  #listen() {
    const { view, crops, mosaic, selection, judging, labels } = this;
    view.addEventListener("change", (event) => this.#load(event.detail));
    labels.addEventListener("change", () => this.#showTitle());
    crops.addEventListener("added", () => {
      this.empty.show();
      if (this.#similar) this.#showTitle();
    });
    crops.addEventListener("reset", () => this.empty.show());
    crops.addEventListener("failed", () => this.empty.show());
    mosaic.addEventListener("scrolled", () => {
      this.empty.show();
      if (!this.#firstDrawn && document.querySelector(".cell.painted")) {
        this.#firstDrawn = true;
        this.pace.crops();
      }
    });
    judging.addEventListener("saved", ({ detail }) => {
      if (view.toJudge) labels.took(detail.n);
      else labels.reloadSoon();
    });
    selection.addEventListener("open", ({ detail }) => this.openTask(detail.crop));
    byId("accept").addEventListener("click", () => judging.accept());
    byId("assign").addEventListener("click", () => this.typeahead.open());
    byId("like").addEventListener("click", () => this.moreLikeThis());
    byId("undo").addEventListener("click", () => judging.undo());
    byId("clear").addEventListener("click", () => selection.clear());
    byId("order").addEventListener("change", ({ target }) => view.set({ order: target.value }));
    byId("upload").addEventListener("click", () => byId("upload-file").click());
    byId("upload-file").addEventListener("change", ({ target }) => {
      if (target.files[0]) this.moreLikeImage(target.files[0]);
      target.value = "";
    });
    // After a click the keyboard belongs to the mosaic again.
    document.addEventListener("click", ({ detail, target }) => {
      const stays = target.closest("form, dialog, #typeahead, input, select, a, #assign, #filters-toggle");
      if (detail > 0 && target.closest("button") && !stays) mosaic.box.focus({ preventScroll: true });
    });
    for (const id of ["order", "show", "control"]) {
      byId(id).addEventListener("change", () => mosaic.box.focus({ preventScroll: true }));
    }
  }

  #showControls() {
    const select = byId("control");
    const { controls } = this.info;
    select.replaceChildren(...controls.map(({ name, title }) => make("option", { value: name }, title || name)));
    select.closest(".control").hidden = controls.length < 2;
    select.addEventListener("change", () =>
      this.view.set({ control: select.value, label: null, open: false, all: false, like: [] }),
    );
  }

  /** Ask for what the view shows now; `change` is what has changed in it. */
  async #load(change) {
    const asked = ++this.#asked;
    const { view } = this;
    const onlyTab = Object.keys(change).length === 1 && "tab" in change;
    if (onlyTab) return;
    byId("control").value = view.get("control");
    byId("order").value = view.get("order");
    this.labels.show();
    const counted = this.labels.load().catch((error) => announce(error.message, { tone: "bad" }));
    const any = ["open", "all", "every"].some((name) => view.get(name));
    if (view.get("label") == null && !any && !view.get("like").length) {
      await counted;
      if (asked !== this.#asked) return;
      const most = this.labels.counts[0];
      const choice = most ? { label: most.label } : this.labels.open ? { open: true } : { all: true };
      view.set(choice, { quiet: true });
      this.labels.show();
    }
    this.#firstDrawn = false;
    this.next.hide();
    if (view.get("like").length) await this.#showSimilar(asked);
    else if (view.get("order") === "next") await this.#showNext(asked);
    else {
      this.#similar = null;
      this.#showTitle();
      await this.crops.reset(view.pageQuery());
    }
  }

  async #showSimilar(asked) {
    const tasks = this.view.get("like");
    const key = this.#keyOf(tasks);
    if (this.#similar?.key !== key) {
      const found = await nearestTo(tasks, this.view);
      if (asked !== this.#asked) return;
      if (!found) return this.view.set({ like: [] });
      this.#similar = this.#like(tasks, found, this.view.get("of"));
    }
    this.#showTitle();
    return this.crops.reset(this.view.filterQuery(), this.#similar.found);
  }

  /** Of all labels: what the model would learn most from. */
  async #showNext(asked) {
    const query = this.view.filterQuery();
    const found = await this.next.choose(query, () => asked === this.#asked);
    if (asked !== this.#asked) return undefined;
    const words = "What to label next";
    this.#similar = { key: words, found, words, title: words, why: this.next.why, leave: { order: "certain" } };
    this.#showTitle();
    return this.crops.reset(query, found, () => this.next.more(query, found));
  }

  async moreLikeThis() {
    const { selection } = this;
    const chosen = selection.size ? selection.list : [selection.active].filter(Boolean);
    if (!chosen.length) return announce("Select one or more images first.");
    const tasks = evenly(chosen.map((crop) => crop.task));
    announce("Looking for similar images …");
    const found = await nearestTo(tasks, this.view);
    if (!found) return undefined;
    this.#similar = this.#like(tasks, found, chosen.length);
    return this.view.set({ like: tasks, of: chosen.length });
  }

  /** What was found depends on whether judged images are shown, too. */
  #keyOf(tasks) {
    return [this.view.toJudge, this.view.get("control"), ...tasks].join();
  }

  /** `of` how many were chosen, where they are more than `tasks`. */
  #like(tasks, found, of) {
    const some = of > tasks.length ? `Like ${whole(tasks.length)} of ${whole(of)}` : `Like ${plural(tasks.length, "image")}`;
    const words = tasks.length === 1 ? `Like image ${tasks[0]}` : some;
    const again = () => {
      this.#similar = null;
      return this.#load({});
    };
    return { key: this.#keyOf(tasks), found, words, again };
  }

  async moreLikeImage(file) {
    announce("Looking for similar images …");
    const found = await nearestToImage(file, this.view);
    if (!found) return;
    const opened = this.showTasks(found, `Like ${file.name}`);
    this.#similar.again = () => this.moreLikeImage(file);
    await opened;
  }

  /** These tasks, `[{task}]`, in this order, under a chip that says what they are; `change` of the view. */
  async showTasks(found, words, change = {}) {
    this.view.set(change, { quiet: true });
    this.view.set({ tab: "labels" });
    if (Object.keys(change).length) this.labels.reloadSoon();
    this.#asked += 1;
    this.#similar = { key: words, found, words, title: words };
    this.#showTitle();
    await this.crops.reset(this.view.filterQuery(), found);
  }

  assignOrShow(label) {
    if (this.selection.size) this.judging.assign(label);
    else this.labels.choose({ label });
  }

  openTask(crop) {
    if (!crop) return;
    window.open(`/projects/${PROJECT}/data?task=${crop.task}`, "_blank", "noopener");
  }

  #showTitle() {
    const { view, labels, crops } = this;
    const similar = this.#similar;
    const shownNow = crops.list.length;
    byId("title").textContent = similar ? (similar.title ?? "More like this") : shown(view.title);
    const rest = view.toJudge ? "to judge" : labels.current === 1 ? "image" : "images";
    byId("count").textContent = similar ? `${whole(shownNow)} of ${plural(similar.found.length, "image")}` : `${whole(labels.current)} ${rest}`;
    byId("similar-chip").replaceChildren(
      ...(similar && !similar.leave ? [chip(similar.words, () => this.#leaveSimilar())] : []),
    );
    byId("order").disabled = view.get("every") || (Boolean(similar) && !similar.leave);
  }

  #leaveSimilar() {
    const leave = this.#similar?.leave ?? {};
    this.#similar = null;
    this.view.set({ like: [], ...leave });
  }
}

new Gallery().start();
