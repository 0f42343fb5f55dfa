// Plots of measurements: a histogram of one, or one against another. Drag selects objects, which the image then shows alone.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { columnTitle, count, number } from "./words.js";

let loading = null;

/** uPlot, loaded when the first plot is shown. */
function loadUplot() {
  loading =
    loading ||
    new Promise((resolve, reject) => {
      const style = Object.assign(document.createElement("link"), {
        rel: "stylesheet",
        href: new URL("vendor/uplot.css", import.meta.url),
      });
      const script = Object.assign(document.createElement("script"), {
        src: new URL("vendor/uplot.js", import.meta.url),
      });
      script.onload = () => resolve(window.uPlot);
      script.onerror = reject;
      document.head.append(style, script);
    });
  return loading;
}

export function bins(values, most = 40) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const number = Math.max(1, Math.min(most, Math.ceil(Math.sqrt(values.length))));
  const width = (high - low) / number || 1;
  const counts = new Array(number).fill(0);
  for (const value of values) counts[Math.min(number - 1, Math.floor((value - low) / width))] += 1;
  return { x: counts.map((_, i) => low + i * width), counts, width };
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function axisStyle(label) {
  return {
    label,
    stroke: css("--text"),
    grid: { stroke: css("--line"), width: 1 },
    ticks: { stroke: css("--line") },
    labelSize: 22,
    font: "12px system-ui",
    labelFont: "13px system-ui",
    values: (_, ticks) => ticks.map((tick) => number(tick)),
  };
}

/** Draw with uPlot in an element that follows the width of its place. `make(uPlot)`: {options, data}. */
export function Plot({ make, inputs, label, height = 300 }) {
  const box = useRef(null);
  useEffect(() => {
    let plot = null;
    let isWanted = true;
    const observer = new ResizeObserver(() => plot?.setSize({ width: box.current.clientWidth, height }));
    loadUplot().then((uPlot) => {
      if (!isWanted) return;
      const { options, data } = make(uPlot);
      plot = new uPlot(
        { width: box.current.clientWidth, height, legend: { show: false }, ...options },
        data,
        box.current,
      );
      observer.observe(box.current);
    });
    return () => {
      isWanted = false;
      observer.disconnect();
      plot?.destroy();
    };
  }, inputs);
  return html`<div class="plot" ref=${box} role="img" aria-label=${label}></div>`;
}

function histogramOf(uPlot, values, title, onRange, counted = "Objects") {
  const { x, counts, width } = bins(values);
  return {
    data: [x.map((each) => each + width / 2), counts],
    options: {
      scales: {
        x: { time: false, range: () => [x[0], x[x.length - 1] + width] },
        y: { range: (_, low, high) => [0, high * 1.05] },
      },
      axes: [axisStyle(title), axisStyle(counted)],
      cursor: { drag: { x: true, y: false, setScale: false } },
      series: [
        {},
        {
          paths: uPlot.paths.bars({ size: [0.98, Infinity] }),
          fill: css("--accent"),
          stroke: css("--accent"),
          width: 0,
          points: { show: false },
        },
      ],
      hooks: {
        setSelect: [
          (plot) =>
            plot.select.width > 2 &&
            onRange(plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")),
        ],
      },
    },
  };
}

function scatterOf(rows, [titleX, titleY], onBox) {
  const sorted = [...rows].sort((a, b) => a.x - b.x);
  return {
    data: [sorted.map((row) => row.x), sorted.map((row) => row.y)],
    options: {
      scales: { x: { time: false } },
      axes: [axisStyle(titleX), axisStyle(titleY)],
      cursor: { drag: { x: true, y: true, setScale: false }, dataIdx: () => null },
      series: [
        {},
        {
          paths: () => null,
          points: { show: true, size: 6, width: 0, fill: css("--accent-soft"), stroke: css("--accent") },
        },
      ],
      hooks: {
        setSelect: [
          (plot) => {
            const { left, top, width, height } = plot.select;
            if (width > 2 && height > 2)
              onBox(
                plot.posToVal(left, "x"),
                plot.posToVal(left + width, "x"),
                plot.posToVal(top + height, "y"),
                plot.posToVal(top, "y"),
              );
          },
        ],
      },
    },
  };
}

export function Plots({ table, channels, onOnly, only }) {
  const names = table.measures;
  const [x, setX] = useState(["area_um2", "area_px"].find((name) => names.includes(name)) || names[0]);
  const [y, setY] = useState("");
  const rows = useMemo(
    () =>
      table.rows
        .map((row) => ({ label: table.value(row, table.key), x: table.value(row, x), y: y ? table.value(row, y) : 0 }))
        .filter((row) => Number.isFinite(row.x) && Number.isFinite(row.y)),
    [table, x, y],
  );
  const pick = (isInside) => onOnly(new Set(rows.filter(isInside).map((row) => row.label)));
  const title = (name) => columnTitle(name, channels);
  const make = (uPlot) =>
    y
      ? scatterOf(rows, [title(x), title(y)], (x0, x1, y0, y1) =>
          pick((row) => row.x >= x0 && row.x <= x1 && row.y >= y0 && row.y <= y1),
        )
      : histogramOf(
          uPlot,
          rows.map((row) => row.x),
          title(x),
          (from, to) => pick((row) => row.x >= from && row.x <= to),
        );
  const options = names.map((name) => html`<option value=${name}>${title(name)}</option>`);
  return html`
    <div class="row wrap">
      <label class="slider">x <select value=${x} onChange=${(event) => setX(event.target.value)}>${options}</select></label>
      <label class="slider">y <select value=${y} onChange=${(event) => setY(event.target.value)}><option value="">number of objects</option>${options}</select></label>
      ${only ? html`<span role="status">${count(only.size)} selected, shown alone in the image</span> <button type="button" onClick=${() => onOnly(null)}>Show all</button>` : html`<span class="hint">Drag in the plot to select objects.</span>`}
    </div>
    ${rows.length ? html`<${Plot} make=${make} inputs=${[table, x, y]} label=${`${y ? `${title(y)} against ${title(x)}` : `Histogram of ${title(x)}`} of ${rows.length} objects`} />` : html`<p class="hint">This column has no numbers.</p>`}`;
}

/** Numbers of objects of the images of a batch, as a histogram. */
export function Counts({ jobs }) {
  const values = jobs.map((job) => job.objects);
  const make = (uPlot) => histogramOf(uPlot, values, "Objects in an image", () => {}, "Images");
  return html`<${Plot} make=${make} inputs=${[values.join()]} height=${240} label=${`Objects per image of ${jobs.length} images`} />`;
}
