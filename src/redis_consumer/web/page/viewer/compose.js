// Composes one tile: channels through their windows, then label images over them. Pure functions over typed arrays.
import { labelColors } from "./colors.js";

const lutCache = new Map();

/** Table of intensities 0..255 for each value of an integer type, between `low` and `high`. */
function lookup(size, low, high) {
  const key = `${size}:${low}:${high}`;
  let table = lutCache.get(key);
  if (!table) {
    table = new Uint8Array(size);
    const span = high - low || 1;
    for (let value = 0; value < size; value++) table[value] = Math.max(0, Math.min(255, ((value - low) / span) * 255));
    if (lutCache.size > 64) lutCache.clear();
    lutCache.set(key, table);
  }
  return table;
}

/** Intensities 0..255 of the values of a channel. */
export function intensities(values, { low, high }) {
  const out = new Uint8Array(values.length);
  if (values instanceof Float32Array) {
    const factor = 255 / (high - low || 1);
    for (let i = 0; i < values.length; i++) {
      const value = (values[i] - low) * factor;
      out[i] = value > 255 ? 255 : value > 0 ? value : 0;
    }
    return out;
  }
  const table = lookup(values instanceof Uint8Array ? 256 : 65536, low, high);
  for (let i = 0; i < values.length; i++) out[i] = table[values[i]];
  return out;
}

/** Write the sum of the channels into `pixels`. `channels`: [{values, low, high, color: [r, g, b]}], at most four. */
export function paintChannels(pixels, channels) {
  const planes = channels.map((channel) => intensities(channel.values, channel));
  const colors = channels.map((channel) => channel.color.map((part) => part / 255));
  if (!planes.length) return pixels.fill(0xff000000);
  if (planes.length === 1) return paintOne(pixels, planes[0], colors[0]);
  for (let i = 0; i < pixels.length; i++) {
    let r = 0,
      g = 0,
      b = 0;
    for (let k = 0; k < planes.length; k++) {
      const value = planes[k][i];
      r += value * colors[k][0];
      g += value * colors[k][1];
      b += value * colors[k][2];
    }
    pixels[i] = 0xff000000 | (Math.min(255, b) << 16) | (Math.min(255, g) << 8) | Math.min(255, r);
  }
  return pixels;
}

function paintOne(pixels, plane, [red, green, blue]) {
  const table = new Uint32Array(256);
  for (let value = 0; value < 256; value++) {
    table[value] = 0xff000000 | ((value * blue) << 16) | ((value * green) << 8) | (value * red);
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[plane[i]];
  return pixels;
}

function mix(below, color, alpha) {
  const keep = 1 - alpha;
  const r = (below & 255) * keep + (color & 255) * alpha;
  const g = ((below >> 8) & 255) * keep + ((color >> 8) & 255) * alpha;
  const b = ((below >> 16) & 255) * keep + ((color >> 16) & 255) * alpha;
  return 0xff000000 | (b << 16) | (g << 8) | r;
}

const WHITE = 0xffffffff;

/**
 * Blend a label image into `pixels`.
 *
 * `style`: {fill, outline, opacity 0..1, colors: Uint32Array by label or null, selected: label or 0, only: Set of labels or null}.
 * Outlines are the pixels of an object that touch another label; pixels beyond the tile count as the same label.
 */
export function paintLabels(pixels, labels, style, size) {
  const colors = style.colors || labelColors;
  const wraps = !style.colors;
  const last = size - 1;
  for (let y = 0, i = 0; y < size; y++) {
    for (let x = 0; x < size; x++, i++) {
      const label = labels[i];
      if (!label || (style.only && !style.only.has(label))) continue;
      const chosen = label === style.selected;
      const edge =
        (style.outline || chosen) &&
        ((x > 0 && labels[i - 1] !== label) ||
          (x < last && labels[i + 1] !== label) ||
          (y > 0 && labels[i - size] !== label) ||
          (y < last && labels[i + size] !== label));
      const color = wraps ? colors[label % colors.length] : colors[label] || 0xff808080;
      if (edge) pixels[i] = chosen ? WHITE : mix(pixels[i], color, Math.max(style.opacity, 0.9));
      else if (style.fill)
        pixels[i] = mix(pixels[i], color, chosen ? Math.min(1, style.opacity + 0.25) : style.opacity);
    }
  }
}

/**
 * Labels of a tile with edits that aren't saved yet.
 *
 * `edits`: {remap: {label: label}, paint: [{label, t, z, runs: [[y, x0, x1], …]}]} in pixels of level 0, x1 excluded.
 * `place`: {t, z, level scale `step`, left, top} of the tile; left and top in pixels of level 0.
 */
export function withEdits(labels, edits, place, size) {
  if (!edits) return labels;
  const out = labels.slice();
  const remap = edits.remap || {};
  if (Object.keys(remap).length) for (let i = 0; i < out.length; i++) if (out[i] in remap) out[i] = remap[out[i]];
  for (const stroke of edits.paint || []) {
    if (stroke.t === place.t && stroke.z === place.z) fillRuns(out, stroke, place, size);
  }
  return out;
}

function fillRuns(labels, stroke, { step, left, top }, size) {
  for (const [y, x0, x1] of stroke.runs) {
    const row = Math.floor((y - top) / step);
    if (row < 0 || row >= size) continue;
    const from = Math.max(0, Math.floor((x0 - left) / step));
    const to = Math.min(size, Math.ceil((x1 - left) / step));
    if (from < to) labels.fill(stroke.label, row * size + from, row * size + to);
  }
}

/** Values below which a share of the pixels lies: the window that shows an image well. Takes the valid part of a tile. */
export function autoWindow(values, width, height, size, shares = [0.001, 0.999]) {
  const sample = [];
  const step = Math.max(1, Math.floor(Math.sqrt((width * height) / 20000)));
  for (let y = 0; y < height; y += step) for (let x = 0; x < width; x += step) sample.push(values[y * size + x]);
  sample.sort((a, b) => a - b);
  const at = (share) => sample[Math.min(sample.length - 1, Math.round(share * (sample.length - 1)))] ?? 0;
  const [low, high] = shares.map(at);
  return { low, high: high > low ? high : low + 1 };
}
