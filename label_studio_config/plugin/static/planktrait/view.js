// What the gallery shows, kept in the page's address, so that a link can be shared.

const TEXTS = [
  "confidence_from", "confidence_to", "novelty_from", "novelty_to", "annotator", "sample",
  "captured_from", "captured_to", "depth_from", "depth_to", "text", "answers", "answered",
];
const ORDERS = ["certain", "uncertain", "novel", "task", "next"];
/** Web servers take addresses of a few thousand letters: a longer list stays in the browser. */
const MOST_LETTERS = 2000;
export const STATES = ["suggested", "open", "accepted", "mine", "others", "conflicting"];

function read() {
  const query = new URLSearchParams(window.location.search);
  const long = new URLSearchParams(window.location.hash.slice(1));
  const order = query.get("order");
  const value = {
    control: query.get("control") ?? "",
    label: query.get("label"),
    open: query.get("suggested") === "0",
    all: query.get("all") === "1",
    every: query.get("every") === "1",
    order: ORDERS.includes(order) ? order : "certain",
    states: query.getAll("state").filter((state) => state === "any" || STATES.includes(state)),
    of: Number(query.get("of")) || 0,
    like: (query.get("similar") ?? long.get("similar") ?? "").split(",").map(Number).filter((n) => n > 0),
    tab: query.get("tab") ?? "labels",
    filters: {},
  };
  for (const name of TEXTS) if (query.get(name)) value.filters[name] = query.get(name);
  return value;
}

function write(value) {
  const query = new URLSearchParams();
  if (value.tab !== "labels") query.set("tab", value.tab);
  if (value.control) query.set("control", value.control);
  if (value.label != null) query.set("label", value.label);
  if (value.open) query.set("suggested", "0");
  if (value.all) query.set("all", "1");
  if (value.every) query.set("every", "1");
  if (value.order !== "certain") query.set("order", value.order);
  value.states.forEach((state) => query.append("state", state));
  for (const [name, text] of Object.entries(value.filters)) query.set(name, text);
  let hash = "";
  if (value.like.length) {
    const tasks = value.like.join(",");
    if (value.of > value.like.length) query.set("of", value.of);
    if (tasks.length > MOST_LETTERS) hash = `#similar=${tasks}`;
    else query.set("similar", tasks);
  }
  const text = query.toString();
  return window.location.pathname + (text ? `?${text}` : "") + hash;
}

/** Which images, in which order. Listeners hear `change` with what changed. */
export class View extends EventTarget {
  constructor() {
    super();
    this.value = read();
    window.addEventListener("popstate", () => {
      this.value = read();
      this.dispatchEvent(new CustomEvent("change", { detail: { from: "address" } }));
    });
  }

  get(name) {
    return this.value[name];
  }

  /** Another label is a step that "back" undoes; a filter or an order is not. */
  set(change, { quiet = false } = {}) {
    // Another choice of images ends that of all of them, with a suggestion or without.
    if (["label", "open", "all"].some((name) => name in change)) this.value.every = false;
    // Another control has other labels.
    if ("control" in change && change.control !== this.value.control && this.value.control) {
      const { answered, ...filters } = this.value.filters;
      this.value.filters = filters;
    }
    // Of how many the tasks in `like` are.
    if ("like" in change) this.value.of = 0;
    const step = ["label", "open", "all", "like", "tab"].some((name) => name in change) && !quiet;
    Object.assign(this.value, change);
    window.history[step ? "pushState" : "replaceState"](null, "", write(this.value));
    if (!quiet) this.dispatchEvent(new CustomEvent("change", { detail: change }));
  }

  setFilter(name, text) {
    const filters = { ...this.value.filters };
    if (text) filters[name] = text;
    else delete filters[name];
    this.set({ filters });
  }

  /** Whether judged images leave the gallery. */
  get toJudge() {
    return this.value.states.length === 0;
  }

  /** The filters, as the API reads them. */
  filterQuery() {
    let state = this.value.states;
    if (this.toJudge) state = ["suggested", "open"];
    if (state.includes("any")) state = [];
    return { control: this.value.control, ...this.value.filters, state };
  }

  /** One page of crops. */
  pageQuery() {
    const query = this.filterQuery();
    const { label, open, all, every, order } = this.value;
    if (every) return { ...query, suggested: "any", order: "task" };
    if (open) return { ...query, label: "", suggested: "0", order: "task" };
    return { ...query, ...(all || label == null ? {} : { label }), order };
  }

  /** The part of the address that makes another list of crops. */
  get title() {
    const { label, open, all, every } = this.value;
    if (every) return "All images";
    return open ? "Not suggested" : all || label == null ? "All suggested" : label;
  }
}
