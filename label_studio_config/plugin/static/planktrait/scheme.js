// Label Studio's colour scheme, before anything is drawn: its stored preference, or the system's.
// A classic script in the head, so that a dark page never flashes white.

(function () {
  const KEY = "preferred-color-scheme";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function apply() {
    const wanted = window.localStorage.getItem(KEY) || "Light";
    const scheme = wanted === "Auto" ? (dark.matches ? "Dark" : "Light") : wanted;
    document.documentElement.dataset.colorScheme = scheme.toLowerCase();
    document.dispatchEvent(new CustomEvent("schemechange", { detail: wanted }));
  }

  window.addEventListener("storage", (event) => event.key === KEY && apply());
  dark.addEventListener("change", apply);
  window.planktraitScheme = {
    wanted: () => window.localStorage.getItem(KEY) || "Light",
    set(wanted) {
      window.localStorage.setItem(KEY, wanted);
      apply();
    },
  };
  apply();
})();
