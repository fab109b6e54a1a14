// The page "Data": which step is seen, what the project has, and the jobs that run for it.

import { getJson, postJson } from "./api.js";
import { announce, byId, plural } from "./dom.js";
import { CountsStep } from "./data-counts.js";
import { ExportStep } from "./data-export.js";
import { ImportStep } from "./data-import.js";
import { SetUpStep } from "./data-set-up.js";
import { EVERYWHERE, Help } from "./help.js";
import { showJobs } from "./model-jobs.js";
import { showTheme } from "./theme.js";

const EVERY_MS = { working: 1_000, quiet: 15_000 };
const STEPS = ["set-up", "import", "export", "counts"];
const ACTIVE = ["queued", "running"];
let timer;

const page = {
  state: null,
  jobs: [],

  /** The newest job of one kind of work: the first word of its key. */
  newest(work) {
    return page.jobs.find((job) => job.key.split(" ")[0] === work);
  },

  isActive(work) {
    return ACTIVE.includes(page.newest(work)?.state);
  },

  async start(work, body, said) {
    try {
      await postJson(`data/start/${work}`, body);
      announce(said, { tone: "good" });
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
    await followJobs();
  },

  async refresh() {
    try {
      page.state = await getJson("data");
    } catch (error) {
      announce(error.message, { tone: "bad" });
      return;
    }
    show();
  },
};

const steps = [new SetUpStep(page), new ImportStep(page), new ExportStep(page), new CountsStep(page)];

async function followJobs() {
  clearTimeout(timer);
  const before = new Map(page.jobs.map((job) => [job.id, job.state]));
  try {
    if (page.state?.backend.answers) page.jobs = (await getJson("data/jobs")).jobs;
    else await page.refresh();
  } catch (error) {
    announce(error.message, { tone: "bad" });
  }
  const ended = page.jobs.filter((job) => ACTIVE.includes(before.get(job.id)) && !ACTIVE.includes(job.state));
  if (ended.length) await page.refresh();
  const failed = ended.find((job) => ["failed", "killed"].includes(job.state));
  if (failed) announce(`${failed.name}: ${inWords(failed.error)}`, { tone: "bad" });
  showAllJobs();
  for (const step of steps) step.showJobs?.(ended);
  const working = page.jobs.some((job) => ACTIVE.includes(job.state));
  timer = setTimeout(followJobs, working ? EVERY_MS.working : EVERY_MS.quiet);
}

/** Of each step the newest job, but one that went well: its outcome says so. */
function showAllJobs() {
  for (const [step, ...works] of [["set-up", "set"], ["import", "look", "import"], ["export", "export"], ["counts", "count"]]) {
    const job = page.jobs.find((one) => works.includes(one.key.split(" ")[0]));
    const place = byId(`jobs-${step}`);
    if (job && job.state !== "finished") {
      showJobs(place, [{ ...job, error: inWords(job.error) }], { seeLog, changed: followJobs });
    } else place.replaceChildren();
  }
}

const HELP = {
  "Steps and forms": [
    [["Tab", "Enter"], "On Set up, Import, Export, Counts: that step"],
    [["Space"], "Tick a box, or not; choose a config or a format"],
    [["← ↑ → ↓"], "The next config or format; in a list, the next entry"],
    [["Enter"], "In a field: start the step, as its button does; on a folder: go into it"],
    [["Esc"], "Close a log"],
  ],
  ...EVERYWHERE,
};

/** Without the name of the exception. */
const inWords = (error) => error?.replace(/^\w+: /, "");

function show() {
  const { project, backend, images, config, may_change: mayChange } = page.state;
  byId("project").textContent = project.title;
  document.title = `Data · ${project.title}`;
  const problem = byId("problem");
  problem.hidden = backend.answers && mayChange;
  problem.textContent = backend.answers ? "You may see this project, but not change it." : backend.problem;
  for (const button of document.querySelectorAll("form button")) button.disabled = !backend.answers || !mayChange;
  const ready = !config.problem && backend.connected && images.root;
  says("set-up", ready ? "Ready" : "Something is missing");
  says("import", plural(images.n, "image"));
  says("export", page.state.exports.length ? plural(page.state.exports.length, "export") : "No export yet");
  const counted = page.state.counts.length ? plural(page.state.counts.length, "table") : "Nothing counted yet";
  says("counts", backend.live ? counted : "Needs a model");
  for (const step of steps) step.show(page.state);
}

function says(step, text) {
  document.querySelector(`[data-step="${step}"]`).textContent = text;
}

function showStep() {
  const asked = location.hash.slice(1);
  const ready = page.state && !page.state.config.problem;
  const chosen = STEPS.includes(asked) ? asked : ready ? "import" : "set-up";
  for (const step of STEPS) {
    byId(`view-${step}`).hidden = step !== chosen;
    const link = document.querySelector(`#steps a[href="#${step}"]`);
    if (step === chosen) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function seeLog(job) {
  try {
    const answer = await getJson(`model/jobs/${encodeURIComponent(job.id)}/log`);
    byId("log-title").textContent = `Log: ${job.name}`;
    byId("log-text").textContent = answer.log || "Nothing is written yet.";
    byId("log").showModal();
    byId("log-text").scrollTop = byId("log-text").scrollHeight;
  } catch (error) {
    announce(error.message, { tone: "bad" });
  }
}

byId("log-close").addEventListener("click", () => byId("log").close());
addEventListener("hashchange", showStep);
new Help(() => HELP).listen();
showTheme();
await page.refresh();
showStep();
await followJobs();
