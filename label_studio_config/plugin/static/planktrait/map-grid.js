// Which points lie where: squares of the map with a few points each.

const POINTS_A_CELL = 4;
const BANDS = 256;

export class Grid {
  /** `x`, `y`: places of n points. */
  constructor({ n, x, y }) {
    Object.assign(this, { n, x, y });
    this.bounds = boundsOf(x, y);
    const { left, right, low, high } = this.bounds;
    this.side = Math.max(1, Math.min(1024, Math.round(Math.sqrt(n / POINTS_A_CELL))));
    this.step = Math.max(right - left, high - low, 1e-6) / this.side;
    const cells = new Uint32Array(n);
    this.starts = new Uint32Array(this.side * this.side + 1);
    for (let i = 0; i < n; i += 1) {
      cells[i] = this.#row(y[i]) * this.side + this.#column(x[i]);
      this.starts[cells[i] + 1] += 1;
    }
    for (let cell = 0; cell < this.side * this.side; cell += 1) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice(0, -1);
    this.order = new Uint32Array(n);
    for (let i = 0; i < n; i += 1) this.order[next[cells[i]]++] = i;
  }

  #column(x) {
    return this.#within(Math.floor((x - this.bounds.left) / this.step));
  }

  #row(y) {
    return this.#within(Math.floor((y - this.bounds.low) / this.step));
  }

  #within(number) {
    return Math.max(0, Math.min(this.side - 1, number));
  }

  #each(left, low, right, high, visit) {
    const [from, to] = [this.#column(left), this.#column(right)];
    for (let row = this.#row(low); row <= this.#row(high); row += 1) {
      const end = this.starts[row * this.side + to + 1];
      for (let k = this.starts[row * this.side + from]; k < end; k += 1) visit(this.order[k]);
    }
  }

  /** The point nearest to a place, within a radius and accepted; -1 where there is none. */
  nearest(x, y, radius, accepted) {
    let found = -1;
    let least = radius * radius;
    this.#each(x - radius, y - radius, x + radius, y + radius, (i) => {
      const distance = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
      if (distance <= least && accepted(i)) [found, least] = [i, distance];
    });
    return found;
  }

  /** The accepted points within a polygon `[[x, y], …]` (even-odd), from their middle outwards. */
  inside(polygon, accepted) {
    const xs = polygon.map(([x]) => x);
    const ys = polygon.map(([, y]) => y);
    const { left, right, low, high } = boundsOf(xs, ys);
    const bands = edgesByBand(polygon, low, high);
    const found = [];
    this.#each(left, low, right, high, (i) => {
      const [x, y] = [this.x[i], this.y[i]];
      if (x < left || x > right || y < low || y > high || !accepted(i)) return;
      let within = false;
      for (const [ax, ay, bx, by] of bands[bandOf(y, low, high)]) {
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
      }
      if (within) found.push(i);
    });
    return this.#outwards(found);
  }

  /** Distance and number in one float, since arrays of floats sort many times as fast. */
  #outwards(found) {
    let [x, y] = [0, 0];
    for (const i of found) [x, y] = [x + this.x[i] / found.length, y + this.y[i] / found.length];
    const far = Float64Array.from(found, (i) => Math.hypot(this.x[i] - x, this.y[i] - y));
    const most = far.reduce((a, b) => Math.max(a, b), 1e-9);
    const keys = far.map((distance, place) => Math.round((distance / most) * 2 ** 26) * 2 ** 26 + place).sort();
    return Uint32Array.from(keys, (key) => found[key % 2 ** 26]);
  }
}

function boundsOf(x, y) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < x.length; i += 1) {
    left = Math.min(left, x[i]);
    right = Math.max(right, x[i]);
    low = Math.min(low, y[i]);
    high = Math.max(high, y[i]);
  }
  return x.length ? { left, right, low, high } : { left: -1, right: 1, low: -1, high: 1 };
}

const bandOf = (y, low, high) => Math.min(BANDS - 1, Math.floor(((y - low) / (high - low || 1)) * BANDS));

/** A point is compared with the edges at its own height only. */
function edgesByBand(polygon, low, high) {
  const bands = Array.from({ length: BANDS }, () => []);
  polygon.forEach(([ax, ay], number) => {
    const [bx, by] = polygon[(number + 1) % polygon.length];
    const last = bandOf(Math.max(ay, by), low, high);
    for (let band = bandOf(Math.min(ay, by), low, high); band <= last; band += 1) bands[band].push([ax, ay, bx, by]);
  });
  return bands;
}
