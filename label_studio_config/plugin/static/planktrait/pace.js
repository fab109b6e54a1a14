// How long the crops have been looked at, how many were judged, and how many an hour.

import { PROJECT } from "./api.js";
import { byId, make, remember, whole } from "./dom.js";

const WINDOW_S = 600;
const LEAST_S = 20;

/** Seconds in which the page was visible. */
export class Stopwatch {
  #sum = 0;
  #since = document.hidden ? null : performance.now();

  constructor() {
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.#since !== null) {
        this.#sum += performance.now() - this.#since;
        this.#since = null;
      } else if (!document.hidden) this.#since ??= performance.now();
    });
  }

  get seconds() {
    const running = this.#since === null ? 0 : performance.now() - this.#since;
    return (this.#sum + running) / 1000;
  }
}

export class Pace {
  #watch = new Stopwatch();
  #shownAt = 0;
  #judged = [];
  visit = 0;

  constructor(userId) {
    const day = new Date().toLocaleDateString("sv");
    this.key = `planktrait-judged-${PROJECT}-${userId}-${day}`;
    setInterval(() => this.show(), 10_000);
    this.show();
  }

  /** Crops have come on screen: the lead time of their judgement begins. */
  crops() {
    this.#shownAt = this.#watch.seconds;
  }

  /** Seconds since the crops came on screen. */
  get leadTime() {
    return Math.max(0.1, this.#watch.seconds - this.#shownAt);
  }

  /** `n` were saved, or taken back (negative). */
  count(n) {
    this.visit = Math.max(0, this.visit + n);
    this.#judged.push({ at: this.#watch.seconds, n });
    remember(this.key, Math.max(0, this.today + n));
    this.show();
  }

  get today() {
    return Number(window.localStorage.getItem(this.key) ?? 0);
  }

  /** Judged an hour, over the last ten minutes in which the page was visible. */
  get perHour() {
    const now = this.#watch.seconds;
    const from = Math.max(0, now - WINDOW_S);
    const seconds = now - from;
    if (seconds < LEAST_S) return null;
    const n = this.#judged.reduce((sum, one) => sum + (one.at >= from ? one.n : 0), 0);
    return n > 0 ? Math.round((n / seconds) * 3600) : null;
  }

  show() {
    const pace = this.perHour;
    const item = (number, words) => make("span", {}, make("b", {}, number), ` ${words}`);
    const items = [item(whole(this.today), "today"), item(whole(this.visit), "this visit")];
    if (pace) items.push(item(whole(pace), "an hour"));
    byId("pace").replaceChildren(...items);
  }
}
