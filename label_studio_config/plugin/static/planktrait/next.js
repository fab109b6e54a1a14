// "What to label next": how the project chooses it, and whether the label stream follows.

import { getJson, postJson } from "./api.js";
import { announce, byId, leadsTo, make, plural } from "./dom.js";

const STRATEGIES = {
  mixture: ["Typical and uncertain", "Typical images of the less certain half: the fewest labels in our measurements"],
  diversity: ["Typical", "A typical image of each cluster that has no label yet"],
  uncertainty: ["Least certain", "What the model is least certain of"],
};

const asFound = (tasks) => tasks.map((task) => ({ task }));

export class NextOrder {
  #place = byId("next-options");
  #changed;
  #drawn = false;
  #saving = Promise.resolve();  // one after the other: the last choice is the one that stays

  /** `changed`: called when another order was saved. */
  constructor(changed) {
    this.#changed = changed;
  }

  hide() {
    this.#place.hidden = true;
  }

  /** What to label next of what passes the filters of `query`, `[{task}]`, most useful first, with
   * the choices above it; [] where there is nothing: `why` says why. What is not `wanted` any more
   * when it comes is not told of. */
  async choose(query, wanted) {
    this.why = null;
    announce("Choosing what to label next …");
    this.#place.hidden = false;
    await this.#draw();
    try {
      const answer = await postJson("next", query);
      if (!wanted()) return [];
      const from = plural(answer.considered, "image that nobody has judged", "images that nobody has judged");
      if (answer.tasks.length) announce(`Chosen from ${from}.`);
      else announce((this.why = `Nothing is left to choose from, or its features are still being computed.${leadsTo(answer)}`));
      return asFound(answer.tasks);
    } catch (error) {
      if (wanted()) announce((this.why = error.message), { tone: "bad" });
      return [];
    }
  }

  /** What follows `found`; [] where nothing is left. */
  async more(query, found) {
    const { tasks } = await postJson("next", { ...query, not: found.map((one) => one.task) });
    return asFound(tasks);
  }

  async #draw() {
    if (this.#drawn) return;
    let order;
    try {
      order = await getJson("label-order");
    } catch {
      return;  // choosing says what is wrong
    }
    this.#drawn = true;
    const refused = order.may_change ? null : "Only who may change the project chooses its order";
    const select = make("select", { "aria-label": "How to choose", disabled: !order.may_change, title: refused },
      ...Object.entries(STRATEGIES).map(([name, [words, why]]) =>
        make("option", { value: name, title: why, selected: name === order.strategy }, words)));
    const box = make("input", { type: "checkbox", disabled: !order.may_change });
    box.checked = order.in_label_stream;
    const save = (again) => {
      const asked = { strategy: select.value, in_label_stream: box.checked };
      this.#saving = this.#saving.then(() => this.#save(asked, again));
    };
    select.addEventListener("change", () => save(true));
    box.addEventListener("change", () => save(false));
    this.#place.replaceChildren(
      make("label", {}, make("span", {}, "Choose by"), select),
      make("label", { title: refused ?? "For everybody who labels this project" }, box,
        make("span", {}, "Label stream in this order, for everybody")),
      make("small", {}), make("small", { role: "status" }));
    this.#tell(order);
  }

  /** What was saved stays beside the choice: the status line belongs to whatever happens next. */
  #tell(order) {
    const [why, stream] = this.#place.querySelectorAll("small");
    why.textContent = `${STRATEGIES[order.strategy][1]}.`;
    stream.dataset.tone = order.waits_because ? "warn" : "";
    if (!order.in_label_stream) stream.textContent = "The label stream goes in Label Studio's own order.";
    else stream.textContent = order.waits_because
      ?? `The label stream follows: ${plural(order.chosen, "image")} chosen so far.`;
  }

  async #save(order, again) {
    try {
      const saved = await postJson("label-order", order);
      this.#tell(saved);
      if (again) this.#changed();
    } catch (error) {
      announce(error.message, { tone: "bad" });
      this.#drawn = false;
      await this.#draw();
    }
  }
}
