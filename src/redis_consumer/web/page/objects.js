// The table of objects: sorted, selected, linked to the image.
import { LongTable, ProblemBox } from "./ui.js";
import { html, useMemo, useState } from "./vendor/preact.js";
import { columnTitle, count, number, plural } from "./words.js";

/** Columns and rows of GET …/objects as a table with values by column. */
export class ObjectTable {
  constructor({ columns, rows }) {
    this.names = columns.map((column) => column.name);
    this.rows = rows;
    this.index = Object.fromEntries(this.names.map((name, i) => [name, i]));
    this.key = ["label", "track", "cell"].find((name) => name in this.index) || this.names[0];
    this.byLabel = null;
  }

  value(row, name) {
    return row[this.index[name]];
  }

  column(name) {
    return this.rows.map((row) => row[this.index[name]]);
  }

  get labels() {
    return this.column(this.key);
  }

  /** Names of columns with numbers that say something about an object. */
  get measures() {
    const places = ["label", "track", "cell", "frame", "t", "z", "top_px", "left_px", "bottom_px", "right_px"];
    return this.names.filter(
      (name) => !places.includes(name) && this.rows.some((row) => typeof row[this.index[name]] === "number"),
    );
  }

  /** First row of a label, in frame `t` if it is there. */
  find(label, t) {
    const hits = this.rows.filter((row) => this.value(row, this.key) === label);
    return hits.find((row) => this.frameOf(row) === t) || hits[0];
  }

  frameOf(row) {
    return this.value(row, "t") ?? this.value(row, "frame") ?? 0;
  }

  /** Middle of an object: {x, y, t, z}, in pixels. */
  placeOf(row) {
    const y = this.value(row, "centroid_y_px") ?? this.value(row, "y_px") ?? this.value(row, "y");
    const x = this.value(row, "centroid_x_px") ?? this.value(row, "x_px") ?? this.value(row, "x");
    return { x: x + 0.5, y: y + 0.5, t: this.frameOf(row), z: this.value(row, "z") ?? 0 };
  }

  /** Largest side of an object's box, in pixels. */
  sizeOf(row) {
    const side = Math.max(
      this.value(row, "bottom_px") - this.value(row, "top_px"),
      this.value(row, "right_px") - this.value(row, "left_px"),
    );
    return Number.isFinite(side) ? side : 40;
  }
}

/** Median of the numbers among values; null if there is none. */
export function median(values) {
  const sorted = values.filter((value) => typeof value === "number" && Number.isFinite(value)).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function summary(table) {
  const column = ["area_um2", "area_px"].find((name) => name in table.index && median(table.column(name)) !== null);
  const typical = column
    ? ` · median area ${number(median(table.column(column)))} ${column === "area_um2" ? "µm²" : "px"}`
    : "";
  return `${plural(new Set(table.labels).size, "object")}${typical}`;
}

export function Objects({ table, channels, selected, onSelect, problem }) {
  const [sort, setSort] = useState({ name: table?.key || "label", isDown: false });
  const columns = useMemo(
    () =>
      (table?.names || []).map((name) => ({
        name,
        title: columnTitle(name, channels),
        show: (row) => number(table.value(row, name)),
      })),
    [table, channels],
  );
  const rows = useMemo(() => {
    if (!table) return [];
    const index = table.index[sort.name] ?? 0;
    const order = (a, b) =>
      typeof a[index] === "number" && typeof b[index] === "number"
        ? a[index] - b[index]
        : String(a[index] ?? "").localeCompare(String(b[index] ?? ""));
    return [...table.rows].sort(sort.isDown ? (a, b) => order(b, a) : order);
  }, [table, sort]);
  const keyOf = (row) => `${table.value(row, table.key)}:${table.frameOf(row)}:${table.value(row, "z") ?? 0}`;
  const chosen =
    selected &&
    rows.find(
      (row) =>
        table.value(row, table.key) === selected.label &&
        (selected.t === undefined || table.frameOf(row) === selected.t),
    );
  if (problem) return html`<${ProblemBox} problem=${problem} tone="warn" />`;
  if (!table) return html`<p class="hint">Loading the table…</p>`;
  if (!rows.length) return html`<p class="hint">There are no objects.</p>`;
  return html`
    <p class="hint">${rows.length > 1 ? `${count(rows.length)} rows. Select one to see it in the image; j and k move.` : ""}</p>
    <${LongTable} label="Objects" columns=${columns} rows=${rows} rowKey=${keyOf} selected=${chosen && keyOf(chosen)} sort=${sort}
      onSort=${(name) => setSort({ name, isDown: sort.name === name && !sort.isDown })}
      onSelect=${(key) => {
        const row = rows.find((each) => keyOf(each) === key);
        onSelect({ label: table.value(row, table.key), ...table.placeOf(row) }, true);
      }} />`;
}
