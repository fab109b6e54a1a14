// "More like this": the nearest images to some crops, or to an image that is uploaded.

import { postFile, postJson } from "./api.js";
import { announce, plural, whole } from "./dom.js";

const LIMIT = 200;
const MOST_ASKED = 1000;
const NOT_YET = new Set([404, 501, 503]);

function explain(error) {
  if (error.status === 409) return error.message;
  if (NOT_YET.has(error.status)) {
    return "Looking for similar images is not ready on this server yet: it needs learned features. Everything else works.";
  }
  return `No similar images: ${error.message}`;
}

const PAUSE_MS = 2500;
const PATIENCE_MS = 10 * 60 * 1000;
let asked = 0;

/** Asks until there is something to compare with: of new images a job looks at each one first. */
async function ask(post, n = 1) {
  const mine = (asked += 1);
  const giveUp = Date.now() + PATIENCE_MS;
  try {
    for (;;) {
      const { tasks, features } = await post();
      // Somebody asked for something else meanwhile.
      if (mine !== asked) return null;
      if (tasks.length || !features?.missing || !features.job || Date.now() > giveUp) {
        return found(tasks, features, n);
      }
      announce(`Looking at ${plural(features.missing, "image")} for the first time, as a job: what is similar comes when it is done.`);
      await new Promise((done) => setTimeout(done, PAUSE_MS));
      if (mine !== asked) return null;
    }
  } catch (error) {
    const expected = NOT_YET.has(error.status) || error.status === 409;
    announce(explain(error), { tone: expected ? "warn" : "bad" });
  }
  return null;
}

/** Of many of the `n` images that were asked about only some are compared, spread evenly. */
function found(tasks, features, n) {
  const rest = features?.missing ? `; ${whole(features.missing)} are not compared yet` : "";
  if (!tasks.length) announce(`No similar images were found${rest}.`);
  else if (!features?.compared) announce(`${plural(tasks.length, "similar image")}, most similar first${rest}.`);
  else {
    const to = `to ${features.compared} of the ${whole(n)}`;
    announce(`${plural(tasks.length, "image")}, most similar first, ${to}${rest}.`);
  }
  return tasks.length ? tasks : null;
}

/** As many tasks as one call takes, spread evenly. */
export function evenly(tasks) {
  const count = Math.min(tasks.length, MOST_ASKED);
  return Array.from({ length: count }, (_, number) => tasks[Math.floor((number * tasks.length) / count)]);
}

/** Where judged images leave the gallery, only what is left to judge: the next ones each time. */
const which = (view) => ({ limit: LIMIT, ...(view.toJudge ? { open: 1, control: view.get("control") } : {}) });

/** The tasks nearest to these, nearest first, `[{task, similarity}]`; null where there is no answer. */
export const nearestTo = (tasks, view) => ask(() => postJson("neighbours", { tasks, ...which(view) }), tasks.length);

export const nearestToImage = (file, view) =>
  ask(() => postFile("neighbours", "image", file, which(view)));
