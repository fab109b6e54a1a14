// The switch for light and dark, with the words and the memory of Label Studio's own.

import { byId } from "./dom.js";

const NEXT = { Auto: "Light", Light: "Dark", Dark: "Auto" };

export function showTheme() {
  const button = byId("theme");
  const scheme = window.planktraitScheme;
  const show = () => {
    button.lastElementChild.textContent = scheme.wanted();
    button.title = "Colours: light, dark, or as the system has them";
  };
  button.addEventListener("click", () => scheme.set(NEXT[scheme.wanted()] ?? "Light"));
  document.addEventListener("schemechange", show);
  show();
}
