// Numbers, sizes and times as people read them.

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
const COUNT = new Intl.NumberFormat("en");

export const count = (value) => COUNT.format(value);

export function number(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : NUMBER.format(value);
}

/** "1 object", "2 objects". */
export const plural = (value, word, many = `${word}s`) => `${count(value)} ${value === 1 ? word : many}`;

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  for (; value >= 1000 && index < units.length - 1; index++) value /= 1000;
  return `${value < 10 && index ? value.toFixed(1) : Math.round(value)} ${units[index]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  return seconds < 10 ? "just now" : `${duration(seconds)} ago`;
}

const asSentence = (text) =>
  (/[.!?:]$/.test(text) ? text : `${text}.`).replace(/^[a-z]+ /, (word) => word[0].toUpperCase() + word.slice(1));

/** Texts joined to sentences: each begins with a capital, unless with a name, and ends in one full stop. */
export const sentences = (...texts) =>
  texts
    .filter(Boolean)
    .map((text) => asSentence(text.trim()))
    .join(" ");

/** Names of columns of the objects table, for people. */
const COLUMNS = {
  label: "Object",
  frame: "Frame",
  area_um2: "Area (µm²)",
  area_px: "Area (px)",
  centroid_x_px: "x (px)",
  centroid_y_px: "y (px)",
  touches_border: "At the border",
  track: "Track",
  parent: "Parent",
  cell: "Cell",
  eccentricity: "Eccentricity",
  solidity: "Solidity",
};

export function columnTitle(name, channels = []) {
  if (COLUMNS[name]) return COLUMNS[name];
  const measured = /^c(\d+)_(.+)$/.exec(name);
  if (measured) return `${channels[measured[1]]?.name || `Channel ${Number(measured[1]) + 1}`} ${measured[2]}`;
  const unit = /^(.*)_(um2|um|px)$/.exec(name);
  const text = (unit ? unit[1] : name).replaceAll("_", " ");
  const units = { um2: " (µm²)", um: " (µm)", px: " (px)" };
  return text.charAt(0).toUpperCase() + text.slice(1) + (unit ? units[unit[2]] : "");
}

/** A stage of a job as a word of its own. */
const STAGES = {
  started: "reading the image",
  "pre-processing": "preparing",
  predicting: "finding objects",
  "post-processing": "separating objects",
  "saving-results": "writing results",
  waiting: "its parts are being processed",
};

export const stageText = (stage) => STAGES[stage] || (stage || "working").replaceAll("_", " ").replaceAll("-", " ");

// What the names of errors mean. A reason begins with one of them.
const ERRORS = {
  InvalidJob: "A setting does not fit",
  InvalidImage: "This image cannot be processed",
  UnsafeArchive: "This archive cannot be unpacked",
  ObjectNotFound: "The file is not there any more",
  ModelNotFound: "This model is not available",
  ModelMismatch: "The model does not fit this image",
  StorageUnavailable: "The storage could not be reached",
  ModelServerUnavailable: "The model server could not be reached",
  RedisUnavailable: "The queue could not be reached",
  JobTimeout: "The job took too long",
};

/** The title of a problem in words: names of errors are no words. */
export function problemTitle(title, fallback = "This did not work") {
  if (ERRORS[title]) return ERRORS[title];
  return !title || title === "Failed" || /^[A-Z]\w*[a-z][A-Z]\w*$/.test(title) ? fallback : title;
}
