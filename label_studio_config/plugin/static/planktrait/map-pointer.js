// Mouse, fingers and wheel on the map: pan, zoom, lasso, and what is under the pointer.

const WHEEL = 0.0016;
const PINCH = 0.01;
const LINE_PX = 16;
const STEP_PX = 3;
const CLICK_PX = 4;

/** Events: `moved`, `over` {x, y}, `left`, `lasso` {polygon}, `drawing` {path}, `click` {x, y}. */
export class Pointer extends EventTarget {
  #down = new Map();
  #path = null;
  #travelled = 0;
  lassoMode = false;

  constructor(canvas, camera) {
    super();
    Object.assign(this, { canvas, camera });
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#release(event));
    canvas.addEventListener("pointerleave", () => this.#say("left"));
  }

  #say(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #wheel(event) {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? LINE_PX : event.deltaMode === 2 ? this.camera.height : 1;
    // A browser tells a pinch on a touch pad as a wheel with Ctrl.
    const factor = Math.exp(-event.deltaY * unit * (event.ctrlKey ? PINCH : WHEEL));
    this.camera.zoomAt(event.offsetX, event.offsetY, factor);
    this.#say("moved");
  }

  #press(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#down.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.#travelled = 0;
    if (this.#down.size > 1) this.cancel();
    else if (event.shiftKey || this.lassoMode) this.#path = [[event.offsetX, event.offsetY]];
    this.canvas.classList.add("held");
    this.#say("left");
  }

  /** Drop a lasso that is being drawn. */
  cancel() {
    const drawing = this.#path !== null;
    this.#path = null;
    if (drawing) this.#say("drawing", { path: [] });
    return drawing;
  }

  #move(event) {
    const now = [event.offsetX, event.offsetY];
    const before = this.#down.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") this.#say("over", { x: now[0], y: now[1] });
      return;
    }
    const far = Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (this.#path) {
      if (far < STEP_PX) return;
      this.#path.push(now);
      this.#down.set(event.pointerId, now);
      this.#say("drawing", { path: this.#path });
      return;
    }
    this.#down.set(event.pointerId, now);
    this.#travelled += far;
    if (this.#down.size === 1) this.camera.panBy(now[0] - before[0], now[1] - before[1]);
    else this.#pinch(event.pointerId, before, now);
    this.#say("moved");
  }

  #pinch(id, before, now) {
    const other = [...this.#down].find(([pointer]) => pointer !== id)[1];
    const was = Math.hypot(before[0] - other[0], before[1] - other[1]);
    const is = Math.hypot(now[0] - other[0], now[1] - other[1]);
    if (was > 0 && is > 0) this.camera.zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, is / was);
    this.camera.panBy((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  }

  #release(event) {
    if (!this.#down.delete(event.pointerId)) return;
    if (!this.#down.size) this.canvas.classList.remove("held");
    const path = this.#path;
    this.#path = null;
    if (path) {
      this.#say("drawing", { path: [] });
      if (path.length > 2 && event.type === "pointerup") {
        this.#say("lasso", { polygon: path.map(([x, y]) => this.camera.toMap(x, y)) });
      }
    } else if (this.#travelled < CLICK_PX && event.type === "pointerup") {
      this.#say("click", { x: event.offsetX, y: event.offsetY });
    }
  }
}
