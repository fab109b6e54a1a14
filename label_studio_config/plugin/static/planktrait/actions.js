// The bar below the mosaic: what can be done now, and what is not saved.

import { postJson } from "./api.js";
import { whatHappened } from "./cell.js";
import { announce, byId, make, plural, whole } from "./dom.js";

export class Actions {
  constructor({ judging, selection, mosaic, keys }) {
    Object.assign(this, { judging, selection, mosaic, keys });
    const soon = () => (this.frame ||= requestAnimationFrame(() => this.show()));
    selection.addEventListener("change", soon);
    judging.addEventListener("change", soon);
    mosaic.addEventListener("scrolled", soon);
    byId("retry").addEventListener("click", () => judging.retry());
    byId("discard").addEventListener("click", () => judging.discard());
    byId("opinion").addEventListener("click", () => this.#askAgain());
    byId("conflicts-next").addEventListener("click", () => this.#nextConflict());
    byId("conflicts-dismiss").addEventListener("click", () => judging.dismissConflicts());
  }

  async #askAgain() {
    const tasks = this.selection.list.map((crop) => crop.task);
    try {
      announce((await postJson("second-opinion", { tasks })).words);
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
  }

  show() {
    this.frame = 0;
    const { judging, selection } = this;
    const accept = judging.acceptable.length;
    const n = selection.size;
    byId("selected").textContent = n ? `${whole(n)} selected` : "";
    byId("clear").hidden = !n;
    byId("accept-text").textContent = n ? `Accept ${whole(accept)} selected` : `Accept ${whole(accept)} in view`;
    byId("accept").disabled = !accept;
    byId("assign").disabled = !n;
    byId("like").disabled = !n && !selection.active;
    byId("like-key").textContent = this.keys.nameOf("m").replace("Shift+", "⇧");
    byId("opinion").disabled = !n;
    byId("undo").disabled = !judging.history.length;
    this.#showUnsaved();
    this.#showConflicts();
  }

  #showUnsaved() {
    const { unsaved } = this.judging;
    byId("unsaved").hidden = !unsaved.length;
    if (!unsaved.length) return;
    const judgements = unsaved.reduce((sum, batch) => sum + batch.items.length, 0);
    byId("unsaved-text").replaceChildren(
      make("b", {}, `${plural(judgements, "judgement")} not saved yet.`),
      ` ${unsaved[0].why}`,
      this.judging.outbox.full ? " The browser has no room to keep them: leave this page open." : "",
    );
  }

  #showConflicts() {
    const { conflicts } = this.judging;
    byId("conflicts").hidden = !conflicts.length;
    if (!conflicts.length) return;
    const [first] = conflicts;
    const byPeople = conflicts.every((crop) => crop.conflict.by);
    const why = byPeople ? "someone else has answered meanwhile." : "each image says why.";
    byId("conflicts-text").replaceChildren(
      make("b", {}, `${plural(conflicts.length, "judgement")} not saved: ${why}`),
      conflicts.length === 1 ? ` ${whatHappened(first.conflict)}.` : "",
    );
  }

  #nextConflict() {
    const { conflicts } = this.judging;
    const after = this.selection.active?.index ?? -1;
    const next = conflicts.find((crop) => crop.index > after) ?? conflicts[0];
    this.selection.setActive(next);
    this.selection.replace([next]);
    this.mosaic.box.focus({ preventScroll: true });
  }
}
