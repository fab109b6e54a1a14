// Words where there are no crops: why, and what to do next.

import { PROJECT } from "./api.js";
import { byId, make, shown, whole } from "./dom.js";

export class Empty {
  constructor({ crops, mosaic, labels, view, info, similar }) {
    Object.assign(this, { crops, mosaic, labels, view, info, similar });
    this.box = byId("empty");
  }

  show() {
    const { crops, box } = this;
    const nothing = this.mosaic.rows.length === 0;
    byId("loading").hidden = !(nothing && !crops.done && !crops.error);
    box.classList.toggle("below", Boolean(crops.error) && !nothing);
    if (crops.error) {
      const again = make("button", { type: "button", onclick: () => crops.retry() }, "Try again");
      const why = make("p", {}, crops.error.message);
      box.replaceChildren(make("h2", {}, "The images did not come"), why, again);
    } else if (nothing && crops.done) box.replaceChildren(...this.#words());
    box.hidden = !(crops.error || (nothing && crops.done));
  }

  #words() {
    const { labels, view } = this;
    const filtered = Object.keys(view.get("filters")).length > 0;
    const similar = this.similar();
    const judged = view.toJudge && !filtered && !similar;
    if (!this.info.has_images && !filtered && !similar) return noImages();
    const again = view.toJudge && !filtered && similar?.again;
    const none = again ? `${similar.words}: nothing left to judge` : similar?.title ? `${shown(similar.title)}: no images` : "No images here";
    const title = judged ? `${shown(view.title)}: nothing left to judge` : none;
    const words = [make("h2", {}, title)];
    if (similar?.why) words.push(make("p", {}, similar.why));
    if (again) words.push(make("button", { type: "button", class: "primary", onclick: again }, "Find the next ones"));
    const next = labels.neighbour(1) ?? labels.neighbour(-1);
    if (filtered) {
      const clear = () => view.set({ filters: {} });
      words.push(make("p", {}, "No image passes all filters."));
      words.push(make("button", { type: "button", onclick: clear }, "Remove the filters"));
    }
    if (next && !similar) {
      const name = next.open ? "Not suggested" : shown(next.label);
      const text = `${name} (${whole(next.count)}) →`;
      const go = () => labels.choose(next);
      words.push(make("button", { type: "button", class: "primary", onclick: go }, text));
    } else if (!this.info.has_suggestions && !view.get("open")) {
      const remedy = "train a model, then choose “Suggest labels” in the Data Manager.";
      words.push(make("p", {}, `No image has a suggestion yet: ${remedy}`));
    }
    return words;
  }
}

function noImages() {
  const place = `/planktrait/projects/${PROJECT}/data#import`;
  return [make("h2", {}, "This project has no images yet"), make("a", { class: "button", href: place }, "Import images")];
}
