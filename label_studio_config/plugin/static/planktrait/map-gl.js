// The points in WebGL: uploaded once; zoom, pan and colours are a few numbers and a small texture.
// A picture is drawn in parts, each as large as the machine draws in the time of a frame or two: while
// it moves, the first part stands for all; at rest the others are added.

const VERTEX = `#version 300 es
precision highp float;
in vec2 place;
in uvec4 codes;
uniform vec2 centre;
uniform vec2 reach;
uniform float size;
uniform int by;
uniform bool choosing;
uniform sampler2D palette;
uniform vec3 faint;
flat out vec4 colour;
void main() {
  uint code = by == 0 ? codes.x : by == 1 ? codes.y : codes.z;
  vec4 own = texelFetch(palette, ivec2(int(code), 0), 0);
  bool shown = own.a > 0.5;
  bool chosen = !choosing || codes.w > 0u;
  colour = shown ? vec4(own.rgb, chosen ? 1.0 : 0.3) : vec4(faint, 0.5);
  float depth = shown && chosen ? 0.0 : shown ? 0.3 : 0.6;
  gl_Position = vec4((place - centre) * reach, depth, 1.0);
  gl_PointSize = shown && chosen && choosing ? size * 1.35 : size;
}`;

const FRAGMENT = `#version 300 es
precision highp float;
flat in vec4 colour;
uniform float size;
out vec4 pixel;
void main() {
  float alpha = colour.a;
  if (size > 2.5) {
    float edge = (1.0 - length(gl_PointCoord * 2.0 - 1.0)) * size * 0.5;
    if (edge <= 0.0) discard;
    alpha *= clamp(edge, 0.0, 1.0);
  }
  pixel = vec4(colour.rgb * alpha, alpha);
}`;

const PART = { first: 30_000, smallest: 15_000 };
/** For the drawing of a part, without what any part takes on its way to the screen. */
const QUICK_MS = 20;
const WANTED_MS = 50;

const UNIFORMS = ["centre", "reach", "size", "by", "choosing", "palette", "faint"];
const POINT_PX = { smallest: 1.3, largest: 11 };

export class NoWebGl extends Error {}

/** Draws on a canvas; throws `NoWebGl` where the browser has no WebGL 2. */
export class Plot {
  #points = null;
  #codes = null;
  #palette = null;
  #part = PART.first;
  #least_ms = Infinity;
  #drawn = 0;
  #begun = null;

  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { alpha: true, antialias: false, preserveDrawingBuffer: true, powerPreference: "high-performance" });
    if (!this.gl) throw new NoWebGl("This browser cannot draw the map: WebGL 2 is missing or turned off. Labels and clusters do without it.");
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => this.#restore());
    this.#prepare();
  }

  #prepare() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.bindAttribLocation(program, 0, "place");
    gl.bindAttribLocation(program, 1, "codes");
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getProgramInfoLog(program) || "the shaders do not link");
    }
    gl.useProgram(program);
    this.at = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(program, name)]));
    [this.places, this.bytes] = [gl.createBuffer(), gl.createBuffer()];
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
  }

  #restore() {
    this.#begun = null;
    this.#prepare();
    if (this.#points) this.setPoints(this.#points);
    if (this.#codes) this.setCodes(this.#codes);
    if (this.#palette) this.setPalette(this.#palette);
    this.onrestored?.();
  }

  setPoints(points) {
    const { gl } = this;
    this.#points = points;
    const pairs = new Float32Array(2 * points.n);
    for (let i = 0; i < points.n; i += 1) {
      pairs[2 * i] = points.x[i];
      pairs[2 * i + 1] = points.y[i];
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.places);
    gl.bufferData(gl.ARRAY_BUFFER, pairs, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
  }

  /** Four bytes a point, see `map-data.js`. */
  setCodes(codes) {
    const { gl } = this;
    this.#codes = codes;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.bytes);
    gl.bufferData(gl.ARRAY_BUFFER, codes, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribIPointer(1, 4, gl.UNSIGNED_BYTE, 0, 0);
  }

  /** 256 colours, RGBA; points whose alpha is 0 are faint and behind the others. */
  setPalette(palette) {
    const { gl } = this;
    this.#palette = palette;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, palette);
  }

  /** Whether all of the picture is there. */
  get isWhole() {
    return this.#points !== null && this.#drawn >= this.#points.n;
  }

  /** Whether the last part is still being drawn; what is asked meanwhile would only wait. */
  get isBusy() {
    if (!this.#begun) return false;
    const { gl } = this;
    const { sync, at_ms, count } = this.#begun;
    if (!gl.isContextLost() && gl.getSyncParameter(sync, gl.SYNC_STATUS) !== gl.SIGNALED) return true;
    gl.deleteSync(sync);
    this.#begun = null;
    const took_ms = performance.now() - at_ms;
    this.#least_ms = Math.min(this.#least_ms, took_ms);
    const drawing_ms = took_ms - this.#least_ms;
    if (drawing_ms > WANTED_MS) this.#part = Math.max(PART.smallest, Math.round((count * WANTED_MS) / drawing_ms));
    else if (drawing_ms < QUICK_MS && count >= this.#part) this.#part = Math.min(2 * this.#part, this.#points.n + PART.first);
    return false;
  }

  /** Begin a picture; `by`: 0 label, 1 confidence, 2 state. */
  begin(camera, { by, choosing, faint }) {
    const { gl, canvas, at } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(camera.width * ratio), Math.round(camera.height * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniform2f(at.centre, camera.x, camera.y);
    gl.uniform2f(at.reach, (2 * camera.scale) / camera.width, (2 * camera.scale) / camera.height);
    gl.uniform1f(at.size, pointSize(this.#points.n, camera) * ratio);
    gl.uniform1i(at.by, by);
    gl.uniform1i(at.choosing, choosing ? 1 : 0);
    gl.uniform3fv(at.faint, faint.map((part) => part / 255));
    this.#drawn = 0;
  }

  /** Add the next part of the picture. */
  add() {
    const { gl } = this;
    const count = Math.min(this.#part, this.#points.n - this.#drawn);
    if (count <= 0) return;
    gl.drawArrays(gl.POINTS, this.#drawn, count);
    this.#drawn += count;
    this.#begun = { sync: gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0), at_ms: performance.now(), count };
    gl.flush();
  }
}

/** Diameter in CSS px: fewer points are larger, and all grow as one comes nearer. */
export function pointSize(n, camera) {
  const room = Math.sqrt((camera.width * camera.height) / Math.max(n, 1));
  const size = 0.42 * room * Math.sqrt(camera.scale / camera.fitted);
  return Math.min(POINT_PX.largest, Math.max(POINT_PX.smallest, size));
}
