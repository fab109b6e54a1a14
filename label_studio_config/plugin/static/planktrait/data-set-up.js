// What a project has and what it lacks; our labeling configs to choose from.

import { PROJECT } from "./api.js";
import { announce, byId, make, plural } from "./dom.js";

/** One line of a list of checks. */
export function check(tone, title, ...words) {
  const sign = { good: "✓", warn: "!", bad: "✕" }[tone];
  const said = { good: "ready", warn: "take note", bad: "missing" }[tone];
  return make("li", {}, make("span", { class: "mark", "data-tone": tone, role: "img", "aria-label": said }, sign),
    make("b", {}, title), make("div", {}, ...words));
}

export class SetUpStep {
  constructor(page) {
    this.page = page;
    this.touched = false;
    byId("set-up-form").addEventListener("change", () => (this.touched = true));
    byId("set-up-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
  }

  show(state) {
    byId("checks").replaceChildren(config(state.config), model(state), ...images(state.images));
    if (!this.touched) this.offer(state);
    if (this.page.isActive("set")) byId("set-up-form").querySelector("button").disabled = true;
  }

  offer({ config: present, configs, backend }) {
    const keep = choice("", "Keep the present one", present.problem ? `Not usable: ${present.problem}` : questions(present.controls),
      { disabled: Boolean(present.problem), checked: !present.problem });
    const ours = configs.map((one) => choice(one.name, one.title, one.description,
      { checked: Boolean(present.problem) && one.name === "traits" }));
    // A project that is set up keeps the order that somebody chose for it.
    byId("least-certain").checked = present.least_certain_first || !backend.connected;
    byId("configs").replaceChildren(...(present.empty ? [] : [keep]), ...ours);
  }

  async start() {
    const config = new FormData(byId("set-up-form")).get("config");
    const { least_certain_first: before } = this.page.state.config;
    const wanted = byId("least-certain").checked;
    const sampling = wanted === before ? null : wanted ? "uncertainty" : "sequential";
    const answered = this.page.state.images.annotated;
    const question = "Change the labeling config? Answers that it does not ask for any more make Label Studio refuse.";
    if (config && answered && !confirm(question)) return;
    this.touched = false;
    await this.page.start("set-up", { config: config || null, sampling }, "Setting up …");
  }

  showJobs(ended) {
    if (ended.some((job) => job.key.startsWith("set ") && job.state === "finished")) {
      announce("The project is set up. Next: import images.", { tone: "good" });
    }
  }
}

function choice(value, title, words, { disabled = false, checked = false }) {
  return make("label", { class: "choice" },
    make("input", { type: "radio", name: "config", value, disabled, checked, required: true }),
    make("b", {}, title), make("small", {}, words));
}

const questions = (controls) => `${plural(controls.length, "question")}: ${some(controls.map((one) => one.name))}`;

function config({ controls, problem, empty, is }) {
  if (empty) return check("bad", "Labeling config", "None yet: choose one below, then set up.");
  if (problem) return check("bad", "Labeling config", problem);
  const learned = controls.filter((one) => !one.why_not_learned).map(told);
  const others = controls.filter((one) => one.why_not_learned);
  const words = learned.length ? `A model learns ${some(learned)}.` : "Nothing in it can be learned; what people say is kept and exported.";
  return check(learned.length ? "good" : "warn", "Labeling config", is ? `Ours, “${is}”. ` : "", make("span", { title: learned.join(", ") }, words),
    others.length ? make("small", { title: others.map((one) => `${one.name}: ${one.why_not_learned}`).join("\n") },
      `Kept and exported, not learned: ${some(others.map((one) => one.name))}`) : null);
}

const MOST = 6;
const some = (names) => names.slice(0, MOST).join(", ") + (names.length > MOST ? ` and ${names.length - MOST} more` : "");

const told = (control) =>
  `${control.name} (${control.labels ? plural(control.labels, "label") : control.unit ?? control.kind})`;

function model({ backend }) {
  if (!backend.answers) return check("bad", "Model", backend.problem);
  if (!backend.connected) return check("bad", "Model", "The ML backend runs, but this project is not connected to it yet.");
  if (!backend.live) return check("good", "Model", "Connected. There is no version yet: the first training makes one.");
  return check("good", "Model", "Connected. Live version: ",
    make("a", { href: `/planktrait/projects/${PROJECT}/model` }, backend.live));
}

function images({ root, problem, shown, n, annotated, blind, blind_tab: tab }) {
  const where = root
    ? check("good", "Folder of images", root, make("small", {}, "Images come from here or from folders below, from nowhere else."))
    : check("bad", "Folder of images", problem);
  const said = n
    ? `${plural(n, "image")}, ${annotated.toLocaleString("en")} of them annotated.`
    : "None yet: import a folder.";
  const there = check(n && shown ? "good" : n ? "bad" : "warn", "Images", said,
    n && !shown ? make("small", {}, "They are not shown yet: set up this project.") : null);
  const yardstick = check(blind && tab ? "good" : "warn", "Blind images",
    blind ? `${plural(blind, "image")} never get a suggestion.` : "None: nothing would show how good the model is. Import with a share of blind images.",
    tab ? null : make("small", {}, "Their tab in the Data Manager is missing: set up this project."));
  return [where, there, yardstick];
}
