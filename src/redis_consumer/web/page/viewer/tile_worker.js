// Fetches tiles, keeps them as they are stored, and composes what is wanted into bitmaps. One worker per viewer.
import { autoWindow, paintChannels, paintLabels, withEdits } from "./compose.js";

const MOST_RAW = 128;
const MOST_UNDERWAY = 8;
const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };

const raw = new Map(); // address → typed array; the least recently used one is first
const underway = new Map(); // address → AbortController
const failed = new Map(); // address → {tries, until}
let source = null; // {base, tile, levels, dtypes, regions, version}
let style = { number: 0, channels: [], labels: [] };
let wanted = []; // tiles, nearest first: {key, t, z, level, row, col}
let done = new Map(); // key → number of the style that it was composed with
let scheduled = false;

function remember(address, values) {
  raw.delete(address);
  raw.set(address, values);
  while (raw.size > Math.max(MOST_RAW, wanted.length * 3)) raw.delete(raw.keys().next().value);
}

function recall(address) {
  const values = raw.get(address);
  if (values) remember(address, values);
  return values;
}

function addressOf(layer, place, channel) {
  const { t, z, level, row, col } = place;
  const query = `${layer === "image" ? `?c=${channel}&` : "?"}v=${source.version}`;
  return `${source.base}/${layer}/${t}/${z}/${level}/${row}/${col}${query}`;
}

/** Tiles of a layer under a tile of the image. Labels of a region have an offset, so that several can be under one. */
function tilesUnder(layer, place) {
  const shape = source.regions[layer];
  if (!shape) return [{ ...place, dx: 0, dy: 0 }];
  const step = source.levels[0].width / source.levels[place.level].width;
  const size = source.tile;
  const [left, top] = [
    place.col * size - Math.round(shape.left / step),
    place.row * size - Math.round(shape.top / step),
  ];
  const found = [];
  for (
    let row = Math.max(0, Math.floor(top / size));
    row * size < Math.min(top + size, Math.ceil(shape.height / step));
    row++
  ) {
    for (
      let col = Math.max(0, Math.floor(left / size));
      col * size < Math.min(left + size, Math.ceil(shape.width / step));
      col++
    ) {
      found.push({ ...place, row, col, dx: col * size - left, dy: row * size - top });
    }
  }
  return place.level < shape.levels ? found : [];
}

function partsOf(place) {
  const parts = style.channels.map((channel) => ({
    layer: "image",
    address: addressOf("image", place, channel.index),
  }));
  for (const { layer } of style.labels) {
    for (const tile of tilesUnder(layer, place)) parts.push({ layer, address: addressOf(layer, tile, 0) });
  }
  return parts;
}

/** Values of a layer under a tile of the image, put together from the tiles of the layer. */
function joined(layer, place) {
  if (!source.regions[layer]) return recall(addressOf(layer, place, 0));
  const size = source.tile;
  const out = new Uint32Array(size * size);
  for (const tile of tilesUnder(layer, place)) {
    const values = recall(addressOf(layer, tile, 0));
    if (!values) return undefined;
    const [x0, x1] = [Math.max(0, tile.dx), Math.min(size, tile.dx + size)];
    for (let y = Math.max(0, tile.dy); y < Math.min(size, tile.dy + size); y++) {
      const from = (y - tile.dy) * size - tile.dx;
      out.set(values.subarray(from + x0, from + x1), y * size + x0);
    }
  }
  return out;
}

async function load(layer, address) {
  const controller = new AbortController();
  underway.set(address, controller);
  try {
    const reply = await fetch(address, { signal: controller.signal });
    if (!reply.ok) throw new Error(`HTTP ${reply.status}`);
    remember(address, new ARRAYS[source.dtypes[layer]](await reply.arrayBuffer()));
    if (failed.delete(address) && !failed.size) postMessage({ type: "online" });
  } catch (error) {
    if (error.name !== "AbortError") {
      const tries = (failed.get(address)?.tries || 0) + 1;
      const wait = Math.min(10000, 500 * 2 ** tries);
      failed.set(address, { tries, until: Date.now() + wait });
      postMessage({ type: "problem", text: String(error.message || error) });
      setTimeout(schedule, wait);
    }
  } finally {
    underway.delete(address);
    schedule();
  }
}

function labelsOf(place, labels) {
  const values = joined(labels.layer, place);
  if (!values || labels.layer !== "labels") return values;
  const step = source.levels[0].width / source.levels[place.level].width;
  const size = source.tile;
  const edge = { t: place.t, z: place.z, step, left: place.col * size * step, top: place.row * size * step };
  return withEdits(values, style.edits, edge, size);
}

async function compose(place) {
  const size = source.tile;
  const image = new ImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer);
  const channels = style.channels.map((channel) => ({
    ...channel,
    values: recall(addressOf("image", place, channel.index)),
  }));
  paintChannels(pixels, channels);
  for (const labels of style.labels) paintLabels(pixels, labelsOf(place, labels), labels, size);
  const number = style.number;
  done.set(place.key, number);
  const bitmap = await createImageBitmap(image);
  postMessage({ type: "tile", key: place.key, number, bitmap }, [bitmap]);
}

function abortUnwanted(needed) {
  for (const [address, controller] of underway) if (!needed.has(address)) controller.abort();
}

/** Start the fetches that are possible, and compose one tile; the rest is done in later turns, so that new wishes get in. */
function work() {
  scheduled = false;
  if (!source) return;
  let ready = null;
  const now = Date.now();
  for (const place of wanted) {
    if (done.get(place.key) === style.number) continue;
    const missing = partsOf(place).filter(({ address }) => !raw.has(address));
    if (!missing.length) {
      ready = ready || place;
      continue;
    }
    for (const { layer, address } of missing) {
      if (underway.size >= MOST_UNDERWAY) break;
      if (!underway.has(address) && !(failed.get(address)?.until > now)) load(layer, address);
    }
    if (ready && underway.size >= MOST_UNDERWAY) break;
  }
  if (ready) compose(ready).finally(schedule);
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  setTimeout(work, 0);
}

/** Values under a pixel of level 0, from the finest tile that is here. */
function valuesAt({ x, y, t, z }) {
  const reply = { x, y, values: [], label: null, second: null };
  for (let level = 0; level < source.levels.length; level++) {
    const scale = source.levels[level].width / source.levels[0].width;
    const [px, py] = [Math.floor(x * scale), Math.floor(y * scale)];
    const place = { t, z, level, row: Math.floor(py / source.tile), col: Math.floor(px / source.tile) };
    const index = (py % source.tile) * source.tile + (px % source.tile);
    const channels = style.allChannels.map((channel) => raw.get(addressOf("image", place, channel))?.[index]);
    const found = { labels: undefined, labels_2: undefined };
    for (const layer of source.labelLayers) found[layer] = labelsOf(place, { layer })?.[index];
    if (channels.some((value) => value !== undefined) || found.labels !== undefined) {
      return { ...reply, values: channels, label: found.labels ?? null, second: found.labels_2 ?? null, level };
    }
  }
  return reply;
}

/** Windows of channels from their coarsest tile. */
async function windowsOf(channels, t, z, shares) {
  const level = source.levels.length - 1;
  const { width, height } = source.levels[level];
  const found = [];
  for (const channel of channels) {
    const address = addressOf("image", { t, z, level, row: 0, col: 0 }, channel);
    if (!raw.has(address)) await load("image", address);
    const values = raw.get(address);
    if (values)
      found.push({
        index: channel,
        ...autoWindow(values, Math.min(width, source.tile), Math.min(height, source.tile), source.tile, shares),
      });
  }
  return found;
}

const ACTIONS = {
  source: (message) => {
    source = message.source;
    failed.clear();
    done = new Map();
  },
  style: (message) => (style = message.style),
  want: (message) => {
    wanted = message.tiles;
    for (const key of message.dropped) done.delete(key);
    abortUnwanted(new Set(wanted.flatMap((place) => partsOf(place).map((part) => part.address))));
  },
  at: (message) => source && postMessage({ type: "at", id: message.id, ...valuesAt(message) }),
  windows: async (message) =>
    postMessage({
      type: "windows",
      id: message.id,
      windows: await windowsOf(message.channels, message.t, message.z, message.shares),
    }),
};

onmessage = ({ data }) => {
  ACTIONS[data.type](data);
  schedule();
};
