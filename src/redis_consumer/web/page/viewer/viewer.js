// Draws a picture of tiles on a canvas: pan, zoom, planes and frames, labels over the image. Needs no other part of the page.
//
//   const viewer = new Viewer(canvas);
//   viewer.show({ base: "/api/v1/jobs/ID/view", view });       // view: what GET …/view answers
//   viewer.setStyle({ channels: [{ index: 0, color: [255, 255, 255], low: 0, high: 4000 }], labels: [...] });
//   viewer.addEventListener("click", (event) => console.log(event.detail.label));
import { attachInput } from "./input.js";
import { drawPoints, drawScaleBar } from "./marks.js";

const MOST_BITMAPS = 160;
const FRAMES_AHEAD = 8;
const MAX_ZOOM = 32;

/** Layers that cover only a part of the image, by name: {left, top, width, height, levels}. */
function regionsOf(view) {
  const found = {};
  for (const { name, width, height, offset_yx: offset = [0, 0] } of view.layers) {
    if (!width || (width === view.width && height === view.height)) continue;
    const levels = Math.max(1, 1 + Math.ceil(Math.log2(Math.max(width, height) / view.tile)));
    found[name] = { left: offset[1], top: offset[0], width, height, levels };
  }
  return found;
}

/** Shows one image. Events: move, hover, click, idle, problem, online; `detail` has what changed. */
export class Viewer extends EventTarget {
  constructor(canvas) {
    super();
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.worker = new Worker(new URL("./tile_worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.bitmaps = new Map(); // key → {bitmap, number}; the least recently drawn one is first
    this.dropped = [];
    this.asked = new Map();
    this.view = null;
    this.style = { number: 0, channels: [], labels: [], allChannels: [] };
    this.place = { x: 0, y: 0, zoom: 1, t: 0, z: 0 }; // x, y: the pixel of level 0 in the middle of the canvas
    this.last = { t: 0, z: 0 };
    this.points = null;
    this.layers = []; // functions (context, viewer) that draw over the picture
    this.tool = null;
    this.playing = false;
    this.showsLabels = true;
    this.resizer = new ResizeObserver(() => this.resize());
    this.resizer.observe(canvas);
    this.detach = attachInput(this);
    this.resize();
  }

  destroy() {
    this.detach();
    this.resizer.disconnect();
    this.worker.terminate();
    for (const { bitmap } of this.bitmaps.values()) bitmap.close();
    this.bitmaps.clear();
    cancelAnimationFrame(this.frame);
  }

  /** Show a view. The place is kept where the size of the image stays the same. */
  show({ base, view }) {
    const isSame = this.view && this.view.width === view.width && this.view.height === view.height;
    const was = this.view;
    this.view = view;
    const layers = Object.fromEntries(view.layers.map((layer) => [layer.name, layer]));
    const source = {
      base,
      tile: view.tile,
      levels: view.levels,
      version: encodeURIComponent(view.version ?? ""),
      dtypes: Object.fromEntries(view.layers.map((layer) => [layer.name, layer.dtype])),
      regions: regionsOf(view),
      labelLayers: ["labels", "labels_2"].filter((name) => name in layers),
    };
    this.channelCount = layers.image?.channels || 1;
    this.worker.postMessage({ type: "source", source });
    this.restyle();
    if (isSame) this.changed();
    else {
      this.forget();
      if (was || !this.isPlaced) this.fit();
      else this.changed();
    }
  }

  forget() {
    for (const [key, { bitmap }] of this.bitmaps) {
      bitmap.close();
      this.dropped.push(key);
    }
    this.bitmaps.clear();
  }

  /** Change channels, labels or edits; see compose.js for their shapes. Only visible tiles are composed again. */
  setStyle(changes) {
    Object.assign(this.style, changes);
    this.restyle();
  }

  restyle() {
    this.style.number += 1;
    this.style.allChannels = Array.from({ length: this.channelCount || 1 }, (_, index) => index);
    const labels = this.showsLabels ? this.style.labels.map((each) => this.atThisZoom(each)) : [];
    this.worker.postMessage({ type: "style", style: { ...this.style, labels } });
    this.changed();
  }

  /** Far away, outlines of thousands of objects cover the image: they are left out, and fills get lighter. */
  atThisZoom(labels) {
    const count = this.view?.layers.find((layer) => layer.name === labels.layer)?.max_label || 0;
    const side = this.view && count ? Math.sqrt((this.view.width * this.view.height) / count) * this.place.zoom : 99;
    this.isFar = side < 7;
    return this.isFar ? { ...labels, fill: true, outline: false, opacity: labels.opacity * 0.6 } : labels;
  }

  // Places

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  get size() {
    return { width: this.canvas.width / this.ratio, height: this.canvas.height / this.ratio };
  }

  /** Position on the canvas in CSS pixels of a point of the image. */
  toScreen(x, y) {
    const { width, height } = this.size;
    return [(x - this.place.x) * this.place.zoom + width / 2, (y - this.place.y) * this.place.zoom + height / 2];
  }

  toImage(sx, sy) {
    const { width, height } = this.size;
    return [(sx - width / 2) / this.place.zoom + this.place.x, (sy - height / 2) / this.place.zoom + this.place.y];
  }

  get fitZoom() {
    const { width, height } = this.size;
    return this.view ? Math.min(width / this.view.width, height / this.view.height) || 1 : 1;
  }

  fit() {
    if (!this.view) return;
    this.goTo({ x: this.view.width / 2, y: this.view.height / 2, zoom: this.fitZoom });
    this.isFitted = true;
  }

  /** Move to a place; what isn't named stays. */
  goTo(changes) {
    const place = { ...this.place, ...changes };
    this.isPlaced = true;
    this.isFitted = false;
    if (this.view) {
      const limit = (value, low, high) => Math.max(low, Math.min(high, value));
      place.zoom = limit(place.zoom, Math.min(this.fitZoom / 2, 1), MAX_ZOOM);
      place.x = limit(place.x, 0, this.view.width);
      place.y = limit(place.y, 0, this.view.height);
      place.t = limit(Math.round(place.t), 0, this.view.t - 1);
      place.z = limit(Math.round(place.z), 0, this.view.z - 1);
    }
    const wasFar = this.isFar;
    const isOtherPlane = place.t !== this.place.t || place.z !== this.place.z;
    if (isOtherPlane) {
      this.last = { t: this.place.t, z: this.place.z };
      this.points = null;
    }
    this.place = place;
    this.style.labels.forEach((each) => this.atThisZoom(each));
    if (wasFar !== undefined && wasFar !== this.isFar) this.restyle();
    this.changed();
    this.emit("move", { ...place, isOtherPlane });
  }

  /** Zoom by a factor; the point (sx, sy) of the canvas stays where it is. */
  zoomBy(factor, sx = this.size.width / 2, sy = this.size.height / 2) {
    const [x, y] = this.toImage(sx, sy);
    const zoom = Math.max(Math.min(this.fitZoom / 2, 1), Math.min(MAX_ZOOM, this.place.zoom * factor));
    const { width, height } = this.size;
    this.goTo({ zoom, x: x - (sx - width / 2) / zoom, y: y - (sy - height / 2) / zoom });
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = [clientWidth, clientHeight].map((side) => Math.max(1, Math.round(side * this.ratio)));
    if (width === this.canvas.width && height === this.canvas.height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.clear();
    if (this.isFitted) this.fit();
    else this.changed();
  }

  // Tiles

  levelFor(zoom) {
    const step = Math.log2(1 / (zoom * this.ratio));
    return Math.max(0, Math.min(this.view.levels.length - 1, Math.floor(step + 0.01)));
  }

  scaleOf(level) {
    return this.view.levels[0].width / this.view.levels[level].width;
  }

  static key({ t, z, level, row, col }) {
    return `${t}/${z}/${level}/${row}/${col}`;
  }

  /** Tiles of a level that the canvas shows, nearest to its middle first. */
  visible(level, t, z) {
    const { rows, cols } = this.view.levels[level];
    const side = this.view.tile * this.scaleOf(level);
    const [left, top] = this.toImage(0, 0);
    const [right, bottom] = this.toImage(this.size.width, this.size.height);
    const tiles = [];
    for (let row = Math.max(0, Math.floor(top / side)); row < Math.min(rows, Math.ceil(bottom / side)); row++) {
      for (let col = Math.max(0, Math.floor(left / side)); col < Math.min(cols, Math.ceil(right / side)); col++) {
        const distance = Math.hypot((col + 0.5) * side - this.place.x, (row + 0.5) * side - this.place.y);
        tiles.push({ t, z, level, row, col, distance, key: Viewer.key({ t, z, level, row, col }) });
      }
    }
    return tiles.sort((a, b) => a.distance - b.distance);
  }

  want() {
    const { t, z, zoom } = this.place;
    const level = this.levelFor(zoom);
    const coarsest = this.view.levels.length - 1;
    const now = this.visible(level, t, z);
    const tiles = level === coarsest || this.playing ? now : [...this.visible(coarsest, t, z), ...now];
    for (let ahead = 1; this.playing && ahead <= FRAMES_AHEAD; ahead++) {
      if (tiles.length + now.length > MOST_BITMAPS * 0.8) break;
      tiles.push(...this.visible(level, (t + ahead) % this.view.t, z));
    }
    this.worker.postMessage({ type: "want", tiles, dropped: this.dropped });
    this.dropped = [];
  }

  receive(data) {
    if (data.type === "tile") return this.keep(data);
    if (data.type === "at" || data.type === "windows") {
      this.asked.get(data.id)?.(data);
      this.asked.delete(data.id);
    } else this.emit(data.type, data);
    return undefined;
  }

  keep({ key, number, bitmap }) {
    this.bitmaps.get(key)?.bitmap.close();
    this.bitmaps.delete(key);
    this.bitmaps.set(key, { bitmap, number });
    while (this.bitmaps.size > MOST_BITMAPS) {
      const [oldest, { bitmap: old }] = this.bitmaps.entries().next().value;
      this.bitmaps.delete(oldest);
      this.dropped.push(oldest);
      old.close();
    }
    this.redraw();
  }

  ask(message) {
    const id = (this.lastId = (this.lastId || 0) + 1);
    return new Promise((resolve) => {
      this.asked.set(id, resolve);
      this.worker.postMessage({ ...message, id });
    });
  }

  /** Values of the channels and labels under a pixel: {x, y, values, label, second}. */
  at(x, y) {
    return this.ask({ type: "at", x: Math.floor(x), y: Math.floor(y), t: this.place.t, z: this.place.z });
  }

  /** Windows that show the channels well: [{index, low, high}]. `shares` of the pixels are below low and high. */
  async windows(channels, shares = [0.001, 0.999]) {
    return (await this.ask({ type: "windows", channels, shares, t: this.place.t, z: this.place.z })).windows;
  }

  isInside(x, y) {
    return this.view && x >= 0 && y >= 0 && x < this.view.width && y < this.view.height;
  }

  // Drawing

  changed() {
    if (!this.view) return;
    this.isStale = true;
    this.redraw();
  }

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.view) return;
      if (this.isStale) this.want();
      this.isStale = false;
      this.draw();
    });
  }

  clear() {
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.fillStyle = "#101214";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  draw() {
    const { context, ratio } = this;
    this.clear();
    const level = this.levelFor(this.place.zoom);
    context.imageSmoothingEnabled = this.place.zoom * ratio * this.scaleOf(level) < 2;
    let sharp = 0;
    const tiles = this.visible(level, this.place.t, this.place.z);
    for (const tile of tiles) sharp += this.drawTile(tile);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.points) drawPoints(context, this, this.points);
    for (const layer of this.layers) layer(context, this);
    this.tool?.draw?.(context, this);
    drawScaleBar(context, this);
    this.share = tiles.length ? sharp / tiles.length : 1;
    if (this.share === 1) this.emit("idle", {});
  }

  /** Draw a tile, or a part of a coarser one, or the same tile of the plane before. Returns 1 if it is as it should be. */
  drawTile(tile) {
    const own = this.bitmaps.get(tile.key);
    const scale = this.scaleOf(tile.level);
    const side = this.view.tile * scale;
    const area = { left: tile.col * side, top: tile.row * side };
    area.right = Math.min(this.view.width, area.left + side);
    area.bottom = Math.min(this.view.height, area.top + side);
    if (own) {
      this.bitmaps.delete(tile.key);
      this.bitmaps.set(tile.key, own);
      this.blit(own.bitmap, tile, area);
      return own.number === this.style.number ? 1 : 0;
    }
    for (let level = tile.level + 1; level < this.view.levels.length; level++) {
      const step = this.view.tile * this.scaleOf(level);
      const parent = { ...tile, level, row: Math.floor(area.top / step), col: Math.floor(area.left / step) };
      const found = this.bitmaps.get(Viewer.key(parent));
      if (found) return this.blit(found.bitmap, parent, area);
    }
    const before = this.bitmaps.get(Viewer.key({ ...tile, ...this.last }));
    if (before) this.blit(before.bitmap, tile, area);
    return 0;
  }

  blit(bitmap, tile, { left, top, right, bottom }) {
    const scale = this.scaleOf(tile.level);
    const [x0, y0] = [tile.col * this.view.tile, tile.row * this.view.tile];
    const [sx0, sy0] = this.toScreen(left, top).map((value) => Math.round(value * this.ratio));
    const [sx1, sy1] = this.toScreen(right, bottom).map((value) => Math.round(value * this.ratio));
    const [width, height] = [(right - left) / scale, (bottom - top) / scale];
    this.context.drawImage(bitmap, left / scale - x0, top / scale - y0, width, height, sx0, sy0, sx1 - sx0, sy1 - sy0);
    return 0;
  }

  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
