// Corrected counts with their intervals: what to count by, the plot, the table.

import { PROJECT, getJson } from "./api.js";
import { deleteButton, download, fileAddress, moment } from "./data-files.js";
import { check } from "./data-set-up.js";
import { announce, byId, make, plural, shown, whole } from "./dom.js";

const DICTIONARY = "counts.dictionary.csv";
const NAMES = { sample_id: "sample", depth: "depth", day: "day" };
const named = (by) => NAMES[by] ?? by;
const decimals = (n) => n.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export class CountsStep {
  constructor(page) {
    this.page = page;
    this.chosen = null;
    this.drawn = null;
    byId("count-by").addEventListener("change", () => this.showBin());
    byId("count-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const body = { by: byId("count-by").value, control: byId("count-control").value };
      if (body.by === "depth") body.depth_bin_m = Number(byId("bin").value);
      page.start("count", body, "Counting …");
    });
  }

  show(state) {
    offer(byId("count-control"), state.counting.controls, (name) => name);
    offer(byId("count-by"), state.counting.by, named);
    this.showBin();
    byId("count-checks").replaceChildren(...checks(state));
    const can = state.backend.live && state.counting.controls.length && state.counting.by.length;
    if (!can || this.page.isActive("count")) byId("count-form").querySelector("button").disabled = true;
    if (!state.counts.some((one) => one.id === this.chosen)) this.chosen = state.counts[0]?.id ?? null;
    this.draw(state);
  }

  showBin() {
    byId("bin-entry").hidden = byId("count-by").value !== "depth";
  }

  showJobs(ended) {
    const done = ended.find((job) => job.key.startsWith("count ") && job.state === "finished");
    if (!done) return;
    this.chosen = done.result.kept;
    this.draw(this.page.state);
    announce(`${plural(done.result.images, "image")} counted in ${plural(done.result.groups, "group")}.`, { tone: "good" });
  }

  async draw({ counts, may_change: mayChange }) {
    const one = counts.find((kept) => kept.id === this.chosen);
    const key = `${this.chosen} ${counts.length}`;
    if (key === this.drawn) return;
    this.drawn = key;
    if (!one) {
      byId("counts").replaceChildren();
      return;
    }
    const choice = make("select", { "aria-label": "Which counts", onchange: (event) => {
      this.chosen = event.target.value;
      this.draw(this.page.state);
    } }, ...counts.map((kept) => make("option", { value: kept.id, selected: kept.id === one.id },
      `${kept.control} by ${named(kept.by)}, ${moment(kept.made_at)}`)));
    const name = `the counts of ${moment(one.made_at)}`;
    const head = make("div", { class: "result-head" }, choice, make("span", { class: "push" }),
      download("counts", one, "counts.csv", "CSV"), download("counts", one, "counts.svg", "Plot (SVG)"),
      download("counts", one, "counts.png", "Plot (PNG)"),
      // Older counts have none.
      ...(one.files.some((file) => file.name === DICTIONARY) ? [download("counts", one, DICTIONARY, "Columns (CSV)")] : []),
      mayChange ? deleteButton("counts", one, name, () => this.page.refresh()) : null);
    const notes = [...(one.checked || one.validated ? [] : [unchecked()]), ...(one.notes ?? []).map((note) => make("p", { class: "notice warn" }, note))];
    const facts = make("p", { class: "quiet" }, `${one.control}, by ${named(one.by)}, as ${one.version} sees it. ` +
      `Intervals: ${one.method}.`);
    const plot = make("img", { class: "plot", src: fileAddress("counts", one, "counts.svg"),
      alt: `Corrected share of each label by ${named(one.by)}, with 95 % intervals` });
    const table = make("div", {}, make("p", { class: "quiet" }, "Loading …"));
    byId("counts").replaceChildren(head, ...notes, plot, facts, table);
    try {
      const answer = await getJson(`data/counts/${encodeURIComponent(one.id)}/table`);
      table.replaceChildren(...tableOf(answer));
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }
}

function offer(select, names, shownAs) {
  const before = select.value;
  select.replaceChildren(...names.map((name) => make("option", { value: name, selected: name === before }, shownAs(name))));
}

function unchecked() {
  return make("p", { class: "notice warn" },
    make("b", {}, "No blind image was validated: the intervals leave the model's own errors out, and are too narrow. "),
    "Import with a share of blind images and annotate those: a few hundred, spread over many samples, do.");
}

function checks({ backend, images, counting }) {
  const gallery = `/planktrait/projects/${PROJECT}/model`;
  const found = [backend.live
    ? check("good", "Model", `Live version: ${backend.live}.`)
    : check("bad", "Model", "There is no model yet: annotate some images and ", make("a", { href: gallery }, "start a training"), ".")];
  if (images.blind_annotated) {
    found.push(check("good", "Blind images", `${whole(images.blind_annotated)} of ${whole(images.blind)} are annotated: they tell how wrong the model may be.`));
  } else {
    found.push(check("warn", "Blind images", images.blind
      ? `None of ${whole(images.blind)} is annotated yet: annotate those in the Data Manager's tab “Blind”, or the intervals leave the model's own errors out.`
      : "There are none: the intervals leave the model's own errors out. Import with a share of blind images, and annotate those."));
  }
  if (!counting.by.length) found.push(check("bad", "Metadata", "The images have no sample, depth, date or other column to count by: import the folder with a table of metadata, into a new project."));
  if (!counting.controls.length) found.push(check("bad", "Config", "The labeling config asks for nothing with one answer an image: such a question is what is counted."));
  return found;
}

function tableOf({ rows, n_rows: all }) {
  const heads = [["Label", ""], ["As suggested", "number"], ["Corrected", "number"], ["95 % interval", ""]];
  const head = make("tr", {}, ...heads.map(([name, kind]) => make("th", { scope: "col", class: kind || null }, name)));
  const body = [];
  let group = null;
  for (const row of rows) {
    if (row.group !== group) {
      group = row.group;
      const judged = row.n_validated ? `, ${whole(row.n_validated)} blind and annotated` : "";
      const open = row.n_shared_out ? `, ${whole(row.n_shared_out)} blind and not annotated` : "";
      const missing = row.n_not_predicted ? `, ${whole(row.n_not_predicted)} more without a prediction` : "";
      const said = `${plural(row.n_images, "image")}${judged}${open}${missing}`;
      body.push(make("tr", { class: "groups" }, make("th", { scope: "rowgroup", colspan: 4 }, group, make("span", {}, said))));
    }
    if (!row.n_images) continue;
    body.push(make("tr", {}, make("td", {}, shown(row.label)), make("td", { class: "number" }, whole(row.raw_count)),
      make("td", { class: "number" }, decimals(row.corrected_count)),
      make("td", { class: "interval" }, row.count_high95 === null ? "none: only as people saw it"
        : `${decimals(row.count_low95)} to ${decimals(row.count_high95)}`)));
  }
  const left = [make("p", { class: "quiet" }, "Labels that were not suggested and are most likely absent are only in the CSV.")];
  if (rows.some((row) => row.n_validated || row.n_shared_out)) {
    left.push(make("p", { class: "quiet" }, "Blind images have no suggestion: they are in “Corrected”, not in “As suggested”."));
  }
  if (all > rows.length) left.push(make("p", { class: "quiet" }, `The first ${whole(rows.length)} of ${whole(all)} rows; all are in the CSV.`));
  return [make("table", { class: "list counted" }, make("thead", {}, head), make("tbody", {}, ...body)), ...left];
}
