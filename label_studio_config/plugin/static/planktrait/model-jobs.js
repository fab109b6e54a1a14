// Jobs of the project: state, progress, error in words, log, cancel.

import { postJson } from "./api.js";
import { announce, make } from "./dom.js";

const ACTIVE = ["queued", "running"];
const clock = (iso) => (iso ? new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "");

export function showJobs(place, jobs, { seeLog, changed }) {
  if (!jobs.length) {
    place.replaceChildren(make("p", { class: "quiet" }, "Nothing has been started yet."));
    return;
  }
  place.replaceChildren(...jobs.slice(0, 20).map((job) => card(job, seeLog, changed)));
}

function card(job, seeLog, changed) {
  const active = ACTIVE.includes(job.state);
  const facts = [clock(job.submitted), took(job), job.follow_up ? "another one follows" : ""].filter(Boolean);
  const actions = make("div", { class: "job-actions" },
    make("button", { type: "button", onclick: () => seeLog(job) }, "Log"),
    active ? make("button", { type: "button", onclick: () => cancel(job, changed) }, "Cancel") : null);
  return make("article", { class: "job", "aria-label": job.name },
    make("b", {}, job.name),
    make("span", { class: "state", "data-state": job.state }, job.state),
    make("p", { class: "facts" }, facts.join(" · ")),
    active ? bar(job) : null,
    job.error ? make("p", { class: "error" }, job.error) : null,
    outcome(job),
    actions);
}

function bar(job) {
  const progress = job.progress;
  const known = progress?.share != null;
  const words = howFar(job, progress);
  const wrap = make("div", { class: "facts" }, words.trim(), make("progress", known ? { max: 1, value: progress.share, "aria-label": words } : { "aria-label": words }));
  return wrap;
}

function howFar(job, progress) {
  if (job.waits_for) return `waits for ${job.waits_for}`;
  if (!progress) return "waiting";
  const count = progress.total ? `${progress.done} of ${progress.total}` : "";
  return `${progress.stage} ${count} ${progress.message ?? ""}`;
}

function outcome(job) {
  const result = job.result;
  if (!result?.version) return null;
  const words = `${result.version}: ${result.promoted ? "live" : "not promoted"}, ${result.reason}`;
  return make("p", { class: "facts" }, words);
}

function took(job) {
  if (!job.started || !job.finished) return "";
  const seconds = (new Date(job.finished) - new Date(job.started)) / 1000;
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

async function cancel(job, changed) {
  if (!confirm(`Cancel ${job.name}? What it has done so far is kept where it can be resumed.`)) return;
  try {
    await postJson(`model/jobs/${encodeURIComponent(job.id)}/cancel`);
    announce(`${job.name}: cancelled.`);
  } catch (error) {
    announce(error.message, { tone: "bad" });
  }
  await changed();
}
