// Annotations and suggestions as files, in the formats of `planktrait export`.

import { deleteButton, download, moment, size } from "./data-files.js";
import { announce, byId, make, plural, whole } from "./dom.js";

const FORMATS = [
  ["csv", "CSV", "A table with one row an image and annotator, for a spreadsheet, R or Python. Every column is explained in a second file."],
  ["json", "JSON", "The same rows, nested, with regions in full: for programs."],
  ["coco", "COCO", "Boxes, polygons and key points in the form that detectors learn from."],
  ["parquet", "Parquet", "As CSV, but smaller, with types and units: for large projects in R or Python."],
];
const NAMES = Object.fromEntries(FORMATS.map(([format, name]) => [format, name]));

export class ExportStep {
  constructor(page) {
    this.page = page;
    byId("formats").replaceChildren(...FORMATS.map(([value, name, words], i) => make("label", { class: "choice" },
      make("input", { type: "radio", name: "format", value, checked: i === 0 }), make("b", {}, name), make("small", {}, words))));
    byId("export-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const format = new FormData(byId("export-form")).get("format");
      page.start("export", { format }, "Exporting …");
    });
  }

  show(state) {
    if (!state.images.n) byId("export-form").querySelector("button").disabled = true;
    if (!state.exports.length) {
      const words = state.images.n ? "Nothing has been exported yet." : "There are no images yet: import some first.";
      byId("exports").replaceChildren(make("p", { class: "quiet" }, words));
      return;
    }
    const heads = ["Made", "Format", "Images", "Rows", "Files", ""];
    const numbers = ["Images", "Rows"];
    const head = make("tr", {}, ...heads.map((name) =>
      make("th", { scope: "col", class: numbers.includes(name) ? "number" : null }, name)));
    byId("exports").replaceChildren(make("table", { class: "list" }, make("thead", {}, head),
      make("tbody", {}, ...state.exports.map((one) => this.row(one, state.may_change)))));
  }

  row(one, mayChange) {
    const rank = (file) => file.name.endsWith(".dictionary.csv");
    const files = one.files.toSorted((a, b) => rank(a) - rank(b)).map((file) => make("span", {}, download("exports", one, file.name), ` ${size(file.bytes)}`));
    const told = [...(one.notes ?? []), one.skipped ? `${plural(one.skipped, "image")} could not be read` : "",
      one.problems?.length ? `${one.problems.length} parts of answers do not fit the config, e.g. ${one.problems[0]}` : ""];
    const beware = told.filter(Boolean).join("; ");
    const name = `the ${NAMES[one.format]} export of ${moment(one.made_at)}`;
    return make("tr", {},
      make("td", {}, moment(one.made_at)),
      make("td", {}, NAMES[one.format] ?? one.format),
      make("td", { class: "number" }, whole(one.images)),
      make("td", { class: "number" }, whole(one.rows)),
      make("td", {}, make("div", { class: "files" }, ...files), beware ? make("small", { class: "quiet" }, beware) : null),
      make("td", {}, mayChange ? deleteButton("exports", one, name, () => this.page.refresh()) : null));
  }

  showJobs(ended) {
    const done = ended.find((job) => job.key.startsWith("export ") && job.state === "finished");
    if (done) announce(`The ${NAMES[done.result.format]} export is ready.`, { tone: "good" });
  }
}
