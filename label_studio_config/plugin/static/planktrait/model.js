// The model's page: versions side by side, their reports, promotion, jobs with progress and log.

import { PROJECT, address, getJson, postJson } from "./api.js";
import { announce, byId, make, percent, plural, whole } from "./dom.js";
import { EVERYWHERE, Help } from "./help.js";
import { showJobs } from "./model-jobs.js";
import { showTheme } from "./theme.js";

const EVERY_MS = { working: 2_000, quiet: 15_000 };
const asked = new URLSearchParams(location.search);
let told = null;
let chosen = asked.get("version");
let loaded = null;
let timer;

const figure = (share) => (share == null ? "–" : share.toFixed(3));
const day = (iso) => (iso ? new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "");

async function refresh() {
  clearTimeout(timer);
  try {
    told = await getJson("model");
    show();
  } catch (error) {
    announce(error.message, { tone: "bad" });
  }
  const working = told?.jobs.some((job) => ["queued", "running"].includes(job.state));
  timer = setTimeout(refresh, working ? EVERY_MS.working : EVERY_MS.quiet);
}

function show() {
  const known = told.versions.map((version) => version.name);
  if (!known.includes(chosen)) chosen = told.live ?? known[0] ?? null;
  byId("versions").replaceChildren(...versions());
  showJobs(byId("jobs"), told.jobs, { seeLog, changed: refresh });
  if (byId("log").hidden) showPage();
}

function versions() {
  if (!told.versions.length) {
    const words = "There is no model yet. Annotate some images of at least two labels, then start a training.";
    return [make("p", { class: "quiet" }, words)];
  }
  return told.versions.map((version, row) => card(version, told.versions[row + 1]));
}

function card(version, before) {
  const live = version.name === told.live;
  const facts = [day(version.made_at), `${plural(version.taught ?? 0, "image")} taught it`];
  if (version.annotators) facts.push(plural(version.annotators, "annotator"));
  const open = make("button", { type: "button", class: "name", onclick: () => choose(version.name) }, version.name);
  const mark = live
    ? make("span", { class: "tag" }, "live")
    : make("button", { type: "button", onclick: () => promote(version.name) }, told.live > version.name ? "Roll back" : "Promote");
  const attributes = { class: version.name === chosen ? "version chosen" : "version" };
  if (version.name === chosen) attributes["aria-current"] = "true";
  return make("article", attributes, open, mark, make("p", { class: "facts" }, facts.join(" · ")), figures(version, before));
}

function figures(version, before) {
  const side = Object.keys(version.metrics.test ?? {}).length ? "test" : "blind";
  const controls = Object.entries(version.metrics[side] ?? {});
  if (!controls.length) return make("p", { class: "facts" }, "No held-out image has been judged yet.");
  const heads = [`${side === "test" ? "Held out" : "Blind"}`, "macro recall", "accuracy", "ECE", "images"];
  const rows = controls.map(([control, now]) => {
    const earlier = before?.metrics[side]?.[control];
    const cells = now.mae == null
      ? [change(now.macro_recall, earlier?.macro_recall), figure(now.micro_accuracy), figure(now.ece)]
      : [`error ${now.mae.toFixed(2)}`, "", now.interval_95_coverage == null ? "" : `${percent(now.interval_95_coverage)} in 95 %`];
    return make("tr", {}, ...[control, ...cells, whole(now.n_images)].map((cell) => make("td", {}, cell)));
  });
  const head = make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

function change(now, before) {
  const text = figure(now);
  if (now == null || before == null || text === figure(before)) return text;
  const better = now > before;
  return make("span", { class: better ? "better" : "worse", title: `${figure(before)} in the version before` },
    `${better ? "▲" : "▼"} ${text}`);
}

async function showAgreement() {
  try {
    byId("agreement").replaceChildren(agreement(await getJson("agreement")));
  } catch (error) {
    byId("agreement").replaceChildren(make("p", { class: "quiet" }, error.message));
  }
}

function agreement({ controls, of_all: ofAll, hidden }) {
  const known = controls.filter((one) => one.n_images);
  if (!known.length) {
    const more = "set “annotations per task” above one, or ask for a second opinion, to know how far people agree.";
    const words = ofAll
      ? `No image has been judged by two people yet: ${more}`
      : "You see how far people agree on the images that you have judged yourself: of these, nobody else has judged any.";
    return make("p", { class: "quiet" }, words);
  }
  const rows = known.map((one) => {
    const { control } = one;
    const query = { control, every: 1, state: "conflicting", ...(ofAll && hidden ? { answers: "all" } : {}) };
    const gallery = `/planktrait/projects/${PROJECT}/gallery?${new URLSearchParams(query)}`;
    const pairs = one.confused.slice(0, 3).map((pair) => `${pair.labels.join(" / ")} (${pair.n_images})`).join("; ");
    const see = `see ${one.conflicts === 1 ? "it" : `all ${whole(one.conflicts)}`}`;
    return [
      make("tr", {},
        make("td", {}, control.replaceAll("_", " ")),
        make("td", {}, one.alpha == null ? "–" : one.alpha.toFixed(2)),
        make("td", {}, whole(one.n_images)),
        make("td", {}, one.conflicts ? make("a", { href: gallery, class: "see" }, see) : "none"),
        make("td", {}, one.conflicts ? askAgain(control) : "")),
      pairs ? make("tr", { class: "pairs" }, make("td", { colspan: 5 }, `Taken for each other: ${pairs}`)) : null,
    ].filter(Boolean);
  });
  const heads = ["Control", "Alpha", "Images", "Disagreed on", ""];
  const head = make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name)));
  const table = make("table", { class: "agreement", title: "Krippendorff's alpha: 1 is full agreement, 0 is chance" },
    make("thead", {}, head), make("tbody", {}, ...rows.flat()));
  if (ofAll) return table;
  return make("div", {}, table, make("p", { class: "quiet" }, "On the images that you have judged yourself."));
}

function askAgain(control) {
  const title = "The images they disagree on come first in the label stream of everybody else";
  return make("button", { type: "button", title, onclick: async (event) => {
    event.target.disabled = true;
    try {
      announce((await postJson("second-opinion", { conflicting: control })).words);
    } catch (error) {
      announce(error.message, { tone: "bad" });
      event.target.disabled = false;
    }
  } }, "Second opinion");
}

function choose(name) {
  chosen = name;
  loaded = null;
  history.replaceState(null, "", `?version=${encodeURIComponent(name)}`);
  byId("log").hidden = true;
  show();
}

function showPage() {
  const version = told.versions.find((one) => one.name === chosen);
  const page = byId("page");
  const empty = byId("empty");
  page.hidden = !version?.report;
  empty.hidden = Boolean(version?.report);
  if (!version) {
    byId("page-head").replaceChildren();
    empty.textContent = "Here comes the page of the version: what it was trained on, figures per class, confusions, calibration, mistakes.";
    return;
  }
  const why = version.promotion.reason ?? "";
  byId("page-head").replaceChildren(
    make("h2", {}, version.name), make("span", { class: "why", title: why }, why), make("span", { class: "push" }),
    version.report ? make("a", { class: "button", href: reportOf(version.name), target: "_blank", rel: "noopener" }, "Open alone") : null);
  if (!version.report) empty.textContent = `${version.name} has no page: planktrait report writes it.`;
  else if (loaded !== version.name) page.src = reportOf(version.name);
  loaded = version.name;
}

/** In the colours of this page: it cannot see them from its own origin. */
function reportOf(name) {
  const scheme = document.documentElement.dataset.colorScheme;
  return address(`model/versions/${encodeURIComponent(name)}/report`, { scheme });
}

async function seeLog(job) {
  try {
    const answer = await getJson(`model/jobs/${encodeURIComponent(job.id)}/log`);
    const log = byId("log");
    log.textContent = answer.log || "Nothing is written yet.";
    byId("page").hidden = byId("empty").hidden = true;
    log.hidden = false;
    log.scrollTop = log.scrollHeight;
    const back = () => {
      log.hidden = true;
      loaded = null;
      show();
    };
    byId("page-head").replaceChildren(make("h2", {}, `Log: ${job.name}`), make("span", { class: "push" }),
      make("button", { type: "button", onclick: () => seeLog(job) }, "Again"),
      make("button", { type: "button", onclick: back }, "Back to the page"));
  } catch (error) {
    announce(error.message, { tone: "bad" });
  }
}

async function promote(name) {
  if (!confirm(`Make ${name} the live version? Its suggestions replace those of ${told.live} as they come.`)) return;
  await act(`model/versions/${encodeURIComponent(name)}/promote`, `${name} is live; its suggestions follow as a job.`);
}

async function act(path, said) {
  try {
    const answer = await postJson(path);
    announce(answer.coalesced ? "It follows the job that is running." : said, { tone: "good" });
  } catch (error) {
    announce(error.message, { tone: "bad" });
  }
  await refresh();
}

for (const button of document.querySelectorAll("[data-start]")) {
  button.addEventListener("click", () => act(`model/start/${button.dataset.start}`, `${button.textContent}: started.`));
}
async function showTitle() {
  // Label Studio's own address, not one of ours.
  const response = await fetch(`/api/projects/${PROJECT}`, { credentials: "same-origin" });
  if (response.ok) byId("project").textContent = (await response.json()).title;
}

const HELP = {
  Versions: [
    [["Tab", "Enter"], "On a version's name: see its page; on “Promote” or “Roll back”: make it live"],
    [["Page Up", "Page Down", "↑ ↓"], "Scroll where the focus is: the versions and jobs, the page, a log"],
    [["Enter"], "On a job's “Log”: read it; on “Back to the page”: leave it"],
  ],
  ...EVERYWHERE,
};

new Help(() => HELP).listen();
showTheme();
document.addEventListener("schemechange", () => {
  loaded = null;
  if (told && byId("log").hidden) showPage();
});
showTitle();
showAgreement();
refresh();
