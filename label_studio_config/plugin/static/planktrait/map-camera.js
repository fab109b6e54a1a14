// Which part of the map the window shows; y points up on the map, down on the screen.

const MARGIN_PX = 24;
const NEAREST = 500;
const FARTHEST = 0.5;

export class Camera {
  x = 0;
  y = 0;
  width = 1;
  height = 1;
  /** px a unit of the map; `fitted` is that which shows all of it. */
  scale = 1;
  fitted = 1;

  resize(width, height, bounds) {
    const zoom = this.scale / this.fitted;
    Object.assign(this, { width: Math.max(width, 1), height: Math.max(height, 1) });
    const across = Math.max(this.width - 2 * MARGIN_PX, 20) / Math.max(bounds.right - bounds.left, 1e-6);
    const down = Math.max(this.height - 2 * MARGIN_PX, 20) / Math.max(bounds.high - bounds.low, 1e-6);
    this.fitted = Math.min(across, down);
    this.scale = zoom * this.fitted;
  }

  fit({ left, right, low, high }) {
    this.x = (left + right) / 2;
    this.y = (low + high) / 2;
    this.scale = this.fitted;
  }

  toMap(px, py) {
    return [this.x + (px - this.width / 2) / this.scale, this.y - (py - this.height / 2) / this.scale];
  }

  toScreen(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, (this.y - y) * this.scale + this.height / 2];
  }

  /** What lies under (px, py) stays there. */
  zoomAt(px, py, factor) {
    const [x, y] = this.toMap(px, py);
    this.scale = Math.min(NEAREST, Math.max(FARTHEST, (this.scale / this.fitted) * factor)) * this.fitted;
    const [nowX, nowY] = this.toMap(px, py);
    this.x += x - nowX;
    this.y += y - nowY;
  }

  panBy(dx, dy) {
    this.x -= dx / this.scale;
    this.y += dy / this.scale;
  }
}
