// The link "Gallery" in Label Studio's header, on every page of a project.
// Label Studio changes pages without loading them, and redraws its header when it likes.

(function () {
  // Label Studio may run a page's scripts again when it changes pages.
  if (window.planktraitLink) return;
  window.planktraitLink = true;

  const CLASS = "planktrait-gallery-link";

  const STYLE = `
    .${CLASS} { display: inline-flex; align-items: center; gap: 6px; height: 32px; padding: 0 10px;
      margin-left: 16px; align-self: center; border-radius: 4px; box-sizing: border-box; white-space: nowrap;
      font: 500 14px/1 Figtree, system-ui, sans-serif; text-decoration: none;
      color: var(--color-primary-content, #4c5fa9);
      border: 1px solid var(--color-primary-border, #4c5fa9);
      background: var(--color-neutral-background, #fdfdfc); }
    .${CLASS}:hover { background: var(--color-primary-background, #f0f3fe);
      color: var(--color-primary-content, #4c5fa9); }
    .${CLASS}:focus-visible { outline: 4px solid var(--color-primary-focus-outline, #d4dbfb); }
    .${CLASS} svg { width: 14px; height: 14px; fill: currentColor; flex: none; }
    .${CLASS}_alone { position: fixed; right: 16px; bottom: 48px; z-index: 1000; margin: 0; }
  `;

  function projectId() {
    const found = /^\/projects\/(\d+)(\/|$)/.exec(window.location.pathname);
    return found ? found[1] : null;
  }

  function makeLink() {
    const link = document.createElement("a");
    link.className = CLASS;
    // Label Studio fetches the pages of other links into its own.
    link.dataset.external = "true";
    link.title = "See and judge many images at a glance";
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 14 14");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", "M0 0h6v4H0zM0 6h6v8H0zM8 0h6v8H8zM8 10h6v4H8z");
    svg.append(path);
    link.append(svg, "Gallery");
    return link;
  }

  const link = makeLink();

  function place() {
    const id = projectId();
    if (id === null) {
      link.remove();
      return;
    }
    const address = `/planktrait/projects/${id}/gallery`;
    if (link.getAttribute("href") !== address) link.setAttribute("href", address);
    const hotkeys = document.querySelector(".lsf-menu-header__hotkeys");
    const header = hotkeys?.parentElement ?? document.querySelector(".lsf-menu-header");
    if (header) {
      link.classList.remove(`${CLASS}_alone`);
      if (link.parentElement !== header) header.insertBefore(link, hotkeys);
    } else if (link.parentElement !== document.body && document.querySelector(".app-wrapper > *")) {
      link.classList.add(`${CLASS}_alone`);
      document.body.append(link);
    }
  }

  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);

  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      place();
    });
  }).observe(document.body, { childList: true, subtree: true });
  window.addEventListener("popstate", place);
  place();
})();
