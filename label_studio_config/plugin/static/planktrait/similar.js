// "More like this": the nearest images to some crops, or to an image that is uploaded.

import { postFile, postJson } from "./api.js";
import { announce } from "./dom.js";

const LIMIT = 200;
const NOT_YET = new Set([404, 501, 503]);

function explain(error) {
  if (NOT_YET.has(error.status)) {
    return "Looking for similar images is not ready on this server yet: it needs learned features. Everything else works.";
  }
  return `No similar images: ${error.message}`;
}

async function ask(post) {
  try {
    const answer = await post();
    if (answer.tasks.length) return answer.tasks;
    announce("No similar images were found.");
  } catch (error) {
    announce(explain(error), { tone: NOT_YET.has(error.status) ? "warn" : "bad" });
  }
  return null;
}

/** The tasks nearest to these, nearest first, `[{task, similarity}]`; null where there is no answer. */
export const nearestTo = (tasks) => ask(() => postJson("neighbours", { tasks, limit: LIMIT }));

export const nearestToImage = (file) =>
  ask(() => postFile("neighbours", "image", file, { limit: LIMIT }));
