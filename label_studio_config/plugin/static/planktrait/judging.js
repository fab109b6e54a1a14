// Judgements: made at once on screen, saved in order, never lost, and undone batch by batch.

import { ApiError, postJson } from "./api.js";
import { GivenUp, newKey, relabel, sendBatch } from "./batches.js";
import { announce, plural, shown } from "./dom.js";
import { Outbox } from "./outbox.js";

const MOST = 500;
const LEAST_LOOK_S = 0.3;

/** Events: `change` (what is not saved, what can be undone), `saved` {crops, n}. */
export class Judging extends EventTarget {
  history = [];
  #chain = Promise.resolve();

  constructor({ mosaic, crops, selection, view, pace, user }) {
    super();
    Object.assign(this, { mosaic, crops, selection, view, pace });
    this.outbox = new Outbox(user.id);
    const { batches, givenUp } = this.outbox.leftOver();
    for (const kept of batches) this.history.push({ ...kept, status: "unsaved" });
    this.givenUp = new GivenUp(givenUp);
    this.#changed();
    this.#tellGivenUp();
    window.addEventListener("beforeunload", (event) => {
      if (this.unsaved.length || this.outbox.full) event.preventDefault();
    });
    window.addEventListener("online", () => this.retry());
  }

  get unsaved() {
    return this.history.filter((batch) => batch.status === "unsaved");
  }

  get conflicts() {
    return this.crops.list.filter((crop) => crop.conflict && !crop.gone);
  }

  /** What "accept" means now: the selection, else what is in the window with a suggestion. */
  get acceptable() {
    const can = (crop) => crop.suggestion && !crop.blind && !crop.leaving;
    if (this.selection.size) return this.selection.list.filter(can);
    const untouched = (crop) =>
      crop.state === "suggested" && !crop.unsaved && !crop.conflict && !crop.problem;
    const drawn = (crop) => this.mosaic.cellOf(crop)?.classList.contains("painted");
    return this.mosaic.inView().filter((crop) => can(crop) && untouched(crop) && drawn(crop));
  }

  accept() {
    const crops = this.acceptable;
    if (!crops.length) {
      announce("Nothing here has a suggestion to accept: type a label instead.");
      return;
    }
    // A second stroke of the same finger is no judgement of crops that have only just come.
    if (!this.selection.size && this.pace.leadTime < LEAST_LOOK_S) {
      announce("These images have only just come: look, then press again.");
      return;
    }
    const items = crops.map((crop) => ({
      crop,
      label: crop.suggestion.label,
      judgement: { task: crop.task, accept: true, prediction: crop.suggestion.prediction },
    }));
    this.#submit(items, "Accepted");
  }

  assign(label) {
    const items = this.selection.list
      .filter((crop) => !crop.leaving)
      .map((crop) => ({ crop, label, judgement: relabel(crop, label) }));
    if (items.length) this.#submit(items, shown(label));
  }

  #submit(items, words) {
    const seen = items.map(({ crop }) => crop.seenAt).filter(Boolean).sort();
    const leadTime = this.pace.leadTime;
    const control = this.view.get("control");
    this.#supersede(this.unsaved, { control, items });
    for (let from = 0; from < items.length; from += MOST) {
      const some = items.slice(from, from + MOST);
      const batch = {
        key: newKey(),
        words,
        items: some,
        control,
        leadTime: (leadTime * some.length) / items.length,
        seenAt: seen[0] ?? null,
        judgedAt: new Date().toISOString(),
        status: "sending",
      };
      this.history.push(batch);
      this.#show(batch);
      this.#enqueue(batch);
    }
    this.pace.crops();
  }

  /** Older judgements that are not saved yet must not come after a newer one of the same tasks. */
  #supersede(older, { control, items }) {
    const tasks = new Set(items.map(({ judgement }) => judgement.task));
    for (const batch of older) {
      if (batch.control !== control) continue;
      batch.items = batch.items.filter(({ judgement }) => !tasks.has(judgement.task));
      if (!batch.items.length) this.#giveUp(batch);
    }
  }

  /** It may have been saved, and only its answer lost; or be on its way still. */
  #giveUp(batch) {
    this.#forget(batch);
    this.givenUp.add(batch.key);
    this.#tellGivenUp();
  }

  #tellGivenUp() {
    if (!this.givenUp.keys.length) return;
    this.#afterwards(async () => {
      const rows = await this.givenUp.tell();
      this.crops.update(rows.filter((row) => !this.crops.find(row.task)?.before));
      this.mosaic.refresh();
      this.#changed();
    });
  }

  /** As if it were saved already: judged crops leave, or bear their answer. */
  #show({ items }) {
    const crops = items.map((item) => item.crop);
    for (const { crop, label } of items) {
      crop.before ??= { state: crop.state, answer: crop.answer };
      crop.unsaved = crop.conflict = null;
      crop.state = crop.suggestion?.label === label ? "accepted" : "mine";
      crop.answer = label;
      crop.leaving = this.view.toJudge;
    }
    this.selection.drop(crops);
    if (this.view.toJudge) this.mosaic.remove(crops).then(() => this.pace.crops());
    else this.mosaic.layOut({ keepPlace: true });
    this.mosaic.refresh();
    this.#changed();
  }

  #enqueue(batch) {
    batch.status = "sending";
    this.#changed();
    return (batch.sent = this.#afterwards(() => this.#send(batch)));
  }

  /** One after the other; what goes wrong with one does not hold up the next. */
  #afterwards(run) {
    const done = this.#chain.then(run);
    this.#chain = done.catch((error) => reportError(error));
    return done;
  }

  async #send(batch) {
    if (batch.status !== "sending") return;
    let answer = null;
    try {
      answer = await sendBatch({ ...batch, judgements: batch.items.map((item) => item.judgement) });
    } catch (error) {
      batch.status = "unsaved";
      batch.why = error instanceof ApiError ? error.message : String(error);
      const at = this.history.indexOf(batch);
      for (const newer of this.history.slice(at + 1)) this.#supersede([batch], newer);
      if (batch.items.length) this.#showUnsaved(batch);
    }
    if (answer) {
      batch.status = "saved";
      batch.id = answer.batch;
      this.#settle(batch, answer);
      this.#tellGivenUp();
    }
    this.#changed();
  }

  #settle(batch, answer) {
    for (const { crop } of batch.items) if (crop) crop.before = crop.unsaved = null;
    this.crops.update(answer.crops);
    const conflicts = answer.conflicts ?? [];
    const back = conflicts.map((conflict) => {
      const crop = this.crops.find(conflict.task);
      if (crop) crop.conflict = conflict;
      return crop;
    });
    const shownAgain = back.filter(Boolean);
    if (answer.saved) this.pace.count(answer.saved);
    else this.#forget(batch);
    if (shownAgain.length) {
      this.mosaic.restore(shownAgain);
      // What was seen now is newer than the page.
      this.crops.refresh(shownAgain.map((crop) => crop.task)).then(
        () => this.mosaic.refresh(),
        () => {},
      );
    } else this.mosaic.refresh();
    const met = conflicts.length ? `, ${conflicts.length} not` : "";
    announce(`${batch.words}: ${plural(answer.saved, "image")} saved${met}.`, {
      tone: met ? "warn" : "good",
    });
    this.dispatchEvent(new CustomEvent("saved", { detail: { n: answer.saved } }));
  }

  #showUnsaved(batch) {
    const crops = batch.items.map((item) => item.crop).filter(Boolean);
    for (const { crop, label } of batch.items) if (crop) crop.unsaved = { label };
    this.mosaic.restore(crops.filter((crop) => this.crops.find(crop.task) === crop));
    announce(`${plural(batch.items.length, "judgement")} not saved yet: ${batch.why}`, {
      tone: "bad",
    });
  }

  /** Send again what was not saved, in the order in which it was made. */
  retry() {
    this.#tellGivenUp();
    return Promise.all(
      this.unsaved.map((batch) => {
        const crops = batch.items.map((item) => item.crop).filter(Boolean);
        const known = crops.filter((crop) => this.crops.find(crop.task) === crop);
        for (const crop of known) {
          crop.unsaved = null;
          crop.leaving = this.view.toJudge;
        }
        if (this.view.toJudge) this.mosaic.remove(known);
        return this.#enqueue(batch);
      }),
    );
  }

  /** Give up what was not saved; the crops are as they were. */
  discard(batches = this.unsaved) {
    const back = [];
    for (const batch of batches) {
      for (const { crop } of batch.items) {
        if (!crop) continue;
        Object.assign(crop, crop.before, { unsaved: null, before: null });
        if (this.crops.find(crop.task) === crop) back.push(crop);
      }
      this.#giveUp(batch);
    }
    this.mosaic.restore(back);
    this.#changed();
  }

  #forget(batch) {
    this.history = this.history.filter((one) => one !== batch);
  }

  /** Take the last batch back, wherever it was made during this visit. */
  async undo() {
    const batch = this.history[this.history.length - 1];
    if (!batch) return announce("There is nothing to undo.");
    if (batch.status === "sending") await batch.sent;
    if (batch.status === "unsaved") {
      this.discard([batch]);
      return announce(`Taken back: ${plural(batch.items.length, "judgement")} that were not saved.`);
    }
    if (!this.history.includes(batch)) return undefined;
    this.#forget(batch);
    try {
      const answer = await postJson(`judgements/${batch.id}/undo`);
      this.#unsettle(answer);
    } catch (error) {
      this.history.push(batch);
      announce(`Not undone: ${error.message}`, { tone: "bad" });
    }
    return this.#changed();
  }

  #unsettle(answer) {
    const back = this.crops.update(answer.crops);
    const kept = answer.kept ?? [];
    this.mosaic.restore(back, { show: true });
    this.selection.replace(back);
    this.pace.count(-answer.undone);
    this.pace.crops();
    const not = kept.length ? `; ${kept.length} kept: ${kept[0].why}` : "";
    announce(`Undone: ${plural(answer.undone, "image")}${not}.`);
    this.dispatchEvent(new CustomEvent("saved", { detail: { n: -answer.undone } }));
  }

  /** The answers of others have been read: those crops need no judgement any more. */
  dismissConflicts() {
    const crops = this.conflicts;
    for (const crop of crops) {
      crop.conflict = null;
      crop.leaving = this.view.toJudge && !["suggested", "open"].includes(crop.state);
    }
    this.mosaic.remove(crops.filter((crop) => crop.leaving));
    this.mosaic.refresh();
    this.#changed();
  }

  #changed() {
    const { full } = this.outbox;
    this.outbox.keep(this.history.filter((batch) => batch.status !== "saved"), this.givenUp.keys);
    if (this.outbox.full && !full) {
      announce("The browser has no room left: leave this page open until all is saved.", { tone: "warn" });
    }
    this.dispatchEvent(new Event("change"));
  }
}
