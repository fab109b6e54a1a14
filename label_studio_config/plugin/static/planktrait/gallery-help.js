// What the keys do in each view of the gallery, and what the signs mean.

import { SIGNS } from "./cell.js";
import { byId, make } from "./dom.js";
import { EVERYWHERE } from "./help.js";
import { MAP_KEYS } from "./map-tab.js";

const VIEWS = [[["←", "→"], "With the focus on Labels, Clusters or Map above: the view beside it"]];
const CLUSTER_KEYS = {
  Clusters: [
    [["Tab", "Shift+Tab"], "From one cluster's “Open”, label and “Label all” to the next one's, or back"],
    [["Enter", "Space"], "On “Open”: its images in the gallery; on “Label all”: save the label for all of them; on “Undo”: take that back"],
    [["↑ ↓", "a … z"], "On the list of labels: choose another"],
    [["Page Up", "Page Down"], "Scroll through the clusters"],
  ],
};

/** The help of the view that is shown. */
export function helpOfGallery(keys) {
  if (!byId("view-map").hidden) return { ...MAP_KEYS, Views: VIEWS };
  if (!byId("view-clusters").hidden) return { ...CLUSTER_KEYS, Views: VIEWS, ...EVERYWHERE };
  return { ...keysOfLabels((letter) => keys.nameOf(letter)), Signs: signs() };
}

function signs() {
  const all = Object.entries(SIGNS).map(([state, { sign, text }]) =>
    make("li", {}, make("span", { class: "sign", "data-state": state }, sign || "▁"), text),
  );
  return make("ul", { class: "signs" }, ...all);
}

function keysOfLabels(name) {
  return {
    Judge: [
      [["Enter", name("a")], "Accept the selection as suggested; with nothing selected, all that is in the window"],
      [["a … z"], "Find a label by typing; Enter assigns it to the selection"],
      [["/"], "Open the list of labels"],
      [["its hotkey"], "Assign a label to the selection at once"],
      [["Ctrl+Z"], "Take the last judgement back, several times"],
    ],
    Select: [
      [["Click"], "One image; Shift: up to it; Ctrl: besides"],
      [["Drag"], "All images in the rubber band"],
      [["← ↑ → ↓"], "Go to the next image; Shift selects on the way"],
      [["Space"], "Select the image, or not"],
      [["Ctrl+A"], "All images in the window"],
      [["Esc"], "Select nothing"],
    ],
    "Look around": [
      [["[", "]"], "Previous, next label"],
      [["Page Up", "Page Down"], "One window up, down"],
      [["+", "−", "Ctrl+Wheel"], "Larger, smaller"],
      [[name("s")], "True scale, or all in the same size"],
      [[name("d")], "Words under each image, or not"],
      [[name("m")], "More like the selection"],
      [["Ctrl+Enter", "Double click"], "Open the image in the editor, in a new tab"],
    ],
  };
}
