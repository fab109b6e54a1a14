// Images from a folder on the server: walk there, see what it would add, import.

import { getJson, postFile } from "./api.js";
import { announce, byId, make, plural, whole } from "./dom.js";

const FOLDER = "M1 3h5l1.5 2H15v9H1z";

export class ImportStep {
  constructor(page) {
    this.page = page;
    this.here = null;
    this.uploaded = null;
    byId("look").addEventListener("click", () => this.start("look", "Looking into the folder …"));
    byId("import-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start("import", "Importing …");
    });
    byId("table-upload").addEventListener("click", () => byId("table-file").click());
    byId("table-file").addEventListener("change", () => this.upload());
  }

  show(state) {
    if (this.here === null && state.may_change && state.images.root) {
      this.here = "";
      this.open("");
    }
    this.allow();
  }

  async open(path) {
    try {
      const folder = await getJson("data/folders", { path });
      this.here = folder.path;
      this.draw(folder);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }

  draw(folder) {
    this.images = folder.images;
    const parts = folder.path ? folder.path.split("/") : [];
    const crumbs = [this.crumb("Images", "")];
    parts.forEach((name, i) => crumbs.push("/", this.crumb(name, parts.slice(0, i + 1).join("/"))));
    byId("path").replaceChildren(...crumbs);
    const rows = folder.folders.map((inner) => make("li", {},
      make("button", { type: "button", onclick: () => this.open(inner.path) }, icon(), make("b", {}, inner.name),
        make("span", {}, amount(inner)))));
    if (folder.more) rows.push(make("li", { class: "none" }, `… and ${plural(folder.more, "folder")} more`));
    if (!rows.length) rows.push(make("li", { class: "none" }, "No folders in here."));
    byId("folders").replaceChildren(...rows);
    byId("here").replaceChildren("Chosen: ", make("b", {}, folder.path || "all images"), `, ${amount(folder)} with all below`);
    this.offerTables(folder.tables);
    this.allow();
  }

  crumb(name, path) {
    return make("button", { type: "button", onclick: () => this.open(path) }, name);
  }

  offerTables(tables) {
    const options = tables.map((name) => make("option", { value: `in:${name}` }, name));
    if (this.uploaded) options.push(make("option", { value: "uploaded", selected: true }, `${this.uploaded.name} (uploaded)`));
    const ecotaxa = tables.some((name) => /^ecotaxa_.*\.tsv$/.test(name));
    const none = ecotaxa ? "as the EcoTaxa export says" : "none";
    byId("table").replaceChildren(make("option", { value: "" }, none), ...options);
  }

  async upload() {
    const [file] = byId("table-file").files;
    if (!file) return;
    try {
      this.uploaded = await postFile("data/tables", "table", file);
      byId("table-name").textContent = `${file.name} is chosen.`;
      await this.open(this.here);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
    byId("table-file").value = "";
  }

  async start(work, said) {
    if (!byId("import-form").reportValidity()) return;
    const table = byId("table").value;
    const body = { folder: this.here ?? "", blind_share: Number(byId("blind").value || 0) / 100 };
    if (table === "uploaded") body.uploaded = this.uploaded.uploaded;
    else if (table) body.table = table.slice(3);
    if (Number(byId("pixel").value)) body.pixel_size_um = Number(byId("pixel").value);
    await this.page.start(work, body, said);
  }

  allow() {
    const { config, may_change: mayChange, backend } = this.page.state;
    const can = mayChange && backend.answers && !config.problem && this.images !== 0;
    byId("look").disabled = !can || this.page.isActive("look");
    byId("import").disabled = !can || this.page.isActive("import");
    byId("import").title = config.problem ? "Set the project up first" : "";
  }

  showJobs(ended) {
    this.allow();
    const newest = this.page.jobs.find((job) => ["look", "import"].includes(job.key.split(" ")[0]));
    const done = newest?.state === "finished" && newest.result;
    byId("found").replaceChildren(...(done ? found(newest) : []));
    const imported = ended.find((job) => job.key.startsWith("import ") && job.state === "finished");
    if (imported) announce(`${plural(imported.result.new, "image")} added.`, { tone: "good" });
    const seen = ended.find((job) => job.key.startsWith("look ") && job.state === "finished");
    if (seen) announce(`${plural(seen.result.new, "new image")} found.`, { tone: "good" });
  }
}

function found({ key, result }) {
  const done = key.startsWith("import ");
  const name = result.folder || "all images";
  const columns = [...result.known_columns, ...result.other_columns];
  return [
    make("h3", {}, done ? `Imported: ${name}` : `Importing ${name} would add`),
    make("div", { class: "figures" },
      figure(result.new, done ? "images added" : "new images"),
      figure(result.present, "there already"),
      figure(result.blind, done ? "of the added are blind" : "of the new ones blind"),
      figure(result.skipped, "left out", result.skipped ? "bad" : "")),
    make("p", {}, columns.length ? "Metadata: " : "No metadata was found: a table gives samples, depths and dates.",
      ...columns.flatMap((column, i) => [i ? " " : "", make("code", {}, column)])),
    result.known_columns.length || !columns.length ? null
      : make("p", {}, "None of these has a meaning of its own; sample_id, depth_m, captured_at, lat, lon and pixel_size_um do."),
    result.skipped ? skipped(result) : null,
  ].filter(Boolean);
}

function figure(n, words, tone = "") {
  return make("div", { "data-tone": tone }, make("b", {}, whole(n)), words);
}

function skipped({ skipped: n, listed }) {
  const rows = listed.map(([path, reason]) => make("li", {}, path, make("span", {}, reason)));
  const more = n - listed.length;
  return make("details", { open: n <= 5 }, make("summary", {}, `${plural(n, "file")} left out, and why`),
    make("ul", { class: "skipped" }, ...rows, more > 0 ? make("li", {}, `… and ${whole(more)} more, in the log of the job on the page Model`) : null));
}

function amount({ images, complete }) {
  if (images == null) return "not counted";
  return complete ? plural(images, "image") : `more than ${whole(images)} images`;
}

function icon() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", FOLDER);
  svg.append(path);
  return svg;
}
