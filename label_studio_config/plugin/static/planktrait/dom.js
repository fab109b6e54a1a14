// Small helpers: elements, numbers, and one voice for the screen reader.

export const byId = (id) => document.getElementById(id);

/** `make("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child)`; text is never HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const whole = (number) => Number(number).toLocaleString("en");
export const percent = (share) =>
  share == null ? "–" : `${(100 * share).toFixed(share > 0.995 && share < 1 ? 1 : 0)} %`;
export const plural = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;
/** A Taxonomy's label is a path. */
/** Of what a question is asked that is not asked of every image, as an answer of the API says. */
export const leadsTo = ({ after }) =>
  after?.length ? ` This question is asked of images for which your answer about ${after.join(" and ")} leads to it.` : "";
export const shown = (label) => String(label ?? "").replaceAll(" / ", " › ");

/** Say it to the screen reader, and in the status line for those who see. */
export function announce(text, { tone = "", visible = true } = {}) {
  const live = byId("live");
  live.textContent = "";
  requestAnimationFrame(() => (live.textContent = text));
  if (!visible) return;
  const status = byId("status");
  status.textContent = status.title = text;
  status.dataset.tone = tone;
}

/** Keep a text in the browser; false where it has no room. */
export function remember(key, text) {
  try {
    window.localStorage.setItem(key, text);
    return true;
  } catch {
    return false;
  }
}

export function debounce(run, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), milliseconds);
  };
}
