// "More like this": the nearest images to some crops, or to an image that is uploaded.

import { postFile, postJson } from "./api.js";
import { announce, plural, whole } from "./dom.js";

const LIMIT = 200;
const NOT_YET = new Set([404, 501, 503]);

function explain(error) {
  if (error.status === 409) return error.message;
  if (NOT_YET.has(error.status)) {
    return "Looking for similar images is not ready on this server yet: it needs learned features. Everything else works.";
  }
  return `No similar images: ${error.message}`;
}

async function ask(post) {
  try {
    const answer = await post();
    const { tasks, features } = answer;
    const rest = features?.missing ? `; ${whole(features.missing)} are not compared yet` : "";
    const found = tasks.length ? plural(tasks.length, "similar image") : "No similar images";
    announce(`${found}${tasks.length ? ", most similar first" : " were found"}${rest}.`);
    if (tasks.length) return tasks;
  } catch (error) {
    const expected = NOT_YET.has(error.status) || error.status === 409;
    announce(explain(error), { tone: expected ? "warn" : "bad" });
  }
  return null;
}

/** The tasks nearest to these, nearest first, `[{task, similarity}]`; null where there is no answer. */
export const nearestTo = (tasks) => ask(() => postJson("neighbours", { tasks, limit: LIMIT }));

export const nearestToImage = (file) =>
  ask(() => postFile("neighbours", "image", file, { limit: LIMIT }));
