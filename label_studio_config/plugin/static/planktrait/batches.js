// Batches of judgements on their way to the server: each under a key, so that it is saved once.

import { postJson } from "./api.js";

const NO_USE = new Set([400, 404]);

/** A label of one's own; the suggestion that was on screen goes with it. */
export function relabel(crop, label) {
  const judgement = { task: crop.task, label };
  if (crop.suggestion) judgement.prediction = crop.suggestion.prediction;
  return judgement;
}

/** `crypto.randomUUID` is not there where a page comes without HTTPS. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** `judgedAt`, an ISO time, is by this browser's clock: `sent_at` tells how far that is out. */
export function sendBatch({ key, control, judgements, leadTime, seenAt, judgedAt }) {
  return postJson("judgements", {
    key,
    control,
    judgements,
    lead_time_s: Math.round(leadTime * 100) / 100,
    seen_at: seenAt,
    judged_at: judgedAt,
    sent_at: new Date().toISOString(),
  });
}

/** Undo a batch, also one of which nobody knows whether the server has it. */
export const takeBack = (key) => postJson("judgements/undo", { key });

/** Batches that were given up before they were known to be saved: the server is told until it has heard. */
export class GivenUp {
  constructor(keys) {
    this.keys = keys;
  }

  add(key) {
    if (key) this.keys.push(key);
  }

  /** What the server says of their crops; those that it has not heard of are tried again later. */
  async tell() {
    const crops = [];
    for (const key of [...this.keys]) {
      try {
        crops.push(...(await takeBack(key)).crops);
      } catch (error) {
        if (!NO_USE.has(error.status)) break;
      }
      this.keys = this.keys.filter((one) => one !== key);
    }
    return crops;
  }
}
