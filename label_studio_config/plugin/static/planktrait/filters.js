// The filters: a panel that opens, a chip for each that is set, and which states are shown.

import { byId, debounce, make, plural, shown } from "./dom.js";
import { SIGNS } from "./cell.js";
import { STATES } from "./view.js";

const NAMES = {
  confidence_from: (v) => `Confidence ≥ ${Math.round(v * 100)} %`,
  confidence_to: (v) => `Confidence ≤ ${Math.round(v * 100)} %`,
  novelty_from: (v) => `Novelty ≥ ${v}`,
  novelty_to: (v) => `Novelty ≤ ${v}`,
  sample: (v) => `Sample ${v}`,
  captured_from: (v) => `From ${v}`,
  captured_to: (v) => `Until ${v}`,
  depth_from: (v) => `Depth ≥ ${v} m`,
  depth_to: (v) => `Depth ≤ ${v} m`,
  text: (v) => `“${v}”`,
  answered: (v) => `Answered ${shown(v)}`,
  answers: () => "Everybody’s answers",
};
const STATE_NAMES = {
  suggested: "Suggested",
  open: "Not suggested",
  accepted: "Accepted by me",
  mine: "My own answer",
  others: "Answered by others",
  conflicting: "Conflicting",
};

const isShare = (input) => input.dataset.unit === "percent";

export class Filters {
  constructor(view, info) {
    Object.assign(this, { view, info });
    this.form = byId("filters");
    this.chips = byId("chips");
    this.#fillChoices();
    this.form.addEventListener("submit", (event) => event.preventDefault());
    const soon = debounce(() => this.#take(), 350);
    this.form.addEventListener("input", ({ target }) => target.name !== "state" && soon());
    this.form.addEventListener("change", ({ target }) => target.name === "state" && this.#takeStates());
    byId("filters-toggle").addEventListener("click", () => this.toggle());
    byId("filters-clear").addEventListener("click", () => this.view.set({ filters: {}, states: [] }));
    byId("show").addEventListener("change", ({ target }) => {
      this.view.set({ states: target.value === "" ? [] : [target.value] });
    });
    view.addEventListener("change", () => this.show());
    this.show();
  }

  toggle(open = this.form.hidden) {
    this.form.hidden = !open;
    byId("filters-toggle").setAttribute("aria-expanded", String(open));
    if (open) this.form.querySelector("input").focus();
  }

  #fillChoices() {
    const { samples, annotators, depth_m: depth } = this.info;
    byId("samples").replaceChildren(...samples.map((value) => make("option", { value })));
    const annotator = this.form.elements.annotator;
    for (const { id, email } of annotators) annotator.append(make("option", { value: id }, email));
    byId("depth-fields").hidden = !depth;
    if (depth) {
      this.form.elements.depth_from.placeholder = Math.floor(depth[0]);
      this.form.elements.depth_to.placeholder = Math.ceil(depth[1]);
    }
    byId("sample-field").hidden = !samples.length;
    const boxes = STATES.map((state) =>
      make(
        "label",
        { class: "check" },
        make("input", { type: "checkbox", name: "state", value: state }),
        make("span", { class: "sign", "data-state": state, "aria-hidden": "true" }, SIGNS[state].sign || "▁"),
        STATE_NAMES[state],
      ),
    );
    byId("state-boxes").replaceChildren(...boxes);
    const show = byId("show");
    for (const state of ["accepted", "mine", "others", "conflicting"]) {
      show.append(make("option", { value: state }, STATE_NAMES[state]));
    }
    show.append(make("option", { value: "several", hidden: true }, "Several states"));
  }

  #take() {
    const filters = {};
    for (const input of this.form.elements) {
      const text = input.name && input.name !== "state" ? input.value.trim() : "";
      if (!text || !input.checkValidity()) continue;
      filters[input.name] = isShare(input) ? String(Number(text) / 100) : text;
    }
    // Not in the form: it comes from the page Model.
    const { answers } = this.view.value.filters;
    if (answers) filters.answers = answers;
    const change = { filters };
    // Nobody has answered what is still to be judged.
    if ((filters.annotator || filters.answered) && this.view.toJudge) change.states = ["any"];
    // Whatever was suggested for it.
    if (filters.answered && !this.view.value.filters.answered) change.every = true;
    if (JSON.stringify(filters) !== JSON.stringify(this.#known())) this.view.set(change);
  }

  /** The filters in the order of the form. */
  #known() {
    const { filters } = this.view.value;
    const names = [...[...this.form.elements].map((input) => input.name), "answers"];
    return Object.fromEntries(names.filter((name) => filters[name]).map((name) => [name, filters[name]]));
  }

  #takeStates() {
    const boxes = [...this.form.querySelectorAll("[name=state]:checked")];
    this.view.set({ states: boxes.map((box) => box.value) });
  }

  /** The labels of the control that is shown. */
  #fillAnswered() {
    const name = this.view.get("control");
    if (name === this.control) return;
    this.control = name;
    const control = this.info.controls.find((one) => one.name === name);
    const labels = [...new Set([...control.labels.map((label) => label.name), ...control.not_assessable])];
    const options = labels.map((label) => make("option", { value: label }, shown(label)));
    this.form.elements.answered.replaceChildren(make("option", { value: "" }, "anything"), ...options);
  }

  show() {
    const { filters, states } = this.view.value;
    this.#fillAnswered();
    for (const input of this.form.elements) {
      if (!input.name) continue;
      if (input.name === "state") {
        const all = states.includes("any");
        const set = states.length ? all || states.includes(input.value) : ["suggested", "open"].includes(input.value);
        input.checked = set;
      } else if (input !== document.activeElement) {
        const value = filters[input.name] ?? "";
        input.value = value && isShare(input) ? String(Math.round(value * 1000) / 10) : value;
      }
    }
    byId("show").value = states.length === 0 ? "" : states.length === 1 ? this.#shownState(states[0]) : "several";
    const names = Object.keys(filters);
    byId("filters-count").textContent = names.length || "";
    byId("filters-toggle").title = names.length ? plural(names.length, "filter") : "No filters";
    this.chips.replaceChildren(...names.map((name) => this.#chip(name, filters[name])));
  }

  #shownState(state) {
    return [...byId("show").options].some((option) => option.value === state) ? state : "several";
  }

  #chip(name, value) {
    let words = NAMES[name]?.(value) ?? value;
    if (name === "annotator") {
      const known = this.info.annotators.find((one) => String(one.id) === String(value));
      words = `By ${known?.email ?? value}`;
    }
    return chip(words, () => this.view.setFilter(name, ""));
  }
}

/** A word in a box that a click removes. */
export function chip(words, remove) {
  return make(
    "button",
    { type: "button", class: "chip", "aria-label": `Remove: ${words}`, onclick: remove },
    make("span", {}, words),
    make("span", { "aria-hidden": "true" }, "✕"),
  );
}
