// Correct the labels: delete, merge, split, paint, undo. Edits are shown at once and saved together as a new version.
import { call, jobPath } from "./api.js";
import { ProblemBox } from "./ui.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { brushTool, partsTool } from "./viewer/tools.js";
import { plural } from "./words.js";

/** Labels and strokes as the viewer shows them, from operations that aren't saved. */
export function preview(ops) {
  const remap = {};
  const paint = [];
  for (const op of ops) {
    if (op.op === "delete") redirect(remap, op.label, 0);
    if (op.op === "merge") for (const label of op.labels.slice(1)) redirect(remap, label, op.labels[0]);
    if (op.op === "paint") paint.push(op);
  }
  return { remap, paint };
}

function redirect(remap, from, to) {
  for (const label of Object.keys(remap)) if (remap[label] === from) remap[label] = to;
  remap[from] = to;
}

const describe = (op) =>
  ({
    delete: () => `Delete object ${op.label}`,
    merge: () => `Merge objects ${op.labels.join(" and ")}`,
    split: () => `Split object ${op.label}`,
    paint: () => (op.label ? `Paint object ${op.label}` : "Erase"),
  })[op.op]();

/** Runs of a whole stroke, rows joined where they touch. */
export function joinRuns(runs) {
  const rows = new Map();
  for (const [y, x0, x1] of runs) rows.set(y, [...(rows.get(y) || []), [x0, x1]]);
  const joined = [];
  for (const [y, spans] of [...rows].sort((a, b) => a[0] - b[0])) {
    spans.sort((a, b) => a[0] - b[0]);
    let [from, to] = spans[0];
    for (const [x0, x1] of spans.slice(1)) {
      if (x0 <= to) to = Math.max(to, x1);
      else {
        joined.push([y, from, to]);
        [from, to] = [x0, x1];
      }
    }
    joined.push([y, from, to]);
  }
  return joined;
}

export function Edit({ job, work, viewer, view, place, selected, onSelect, onEdits }) {
  const [ops, setOps] = useState([]);
  const [mode, setMode] = useState("select");
  const [radius, setRadius] = useState(6);
  const [problem, setProblem] = useState(null);
  const [isSaving, setSaving] = useState(false);
  const first = useRef(null); // the object selected before, for a merge
  const now = useRef({});
  now.current = { ops, selected, radius, place };
  const add = (op) => setOps((before) => [...before, op]);
  const most = Math.max(
    view?.layers.find((layer) => layer.name === "labels")?.max_label || 0,
    ...ops.map((op) => op.label || 0),
  );

  useEffect(() => {
    onEdits(ops.length ? preview(ops) : null);
  }, [ops]);
  useEffect(
    () => () => {
      onEdits(null);
      viewer.tool = null;
      viewer.redraw();
    },
    [],
  );
  useEffect(() => {
    if (selected?.shift && first.current && first.current !== selected.label) merge(first.current, selected.label);
    first.current = selected?.label || null;
  }, [selected]);

  const merge = (a, b) => {
    add({ op: "merge", labels: [a, b] });
    onSelect({ label: a, t: place.t });
  };
  const remove = () => {
    if (!selected) return;
    add({ op: "delete", label: selected.label });
    onSelect(null);
  };
  const undo = () => setOps((before) => before.slice(0, -1));

  useEffect(() => {
    viewer.tool = null;
    if (mode === "split" && selected)
      viewer.tool = partsTool(viewer, (points) => {
        add({ op: "split", label: selected.label, points, t: place.t, z: place.z });
        setMode("select");
      });
    if (mode === "merge") onSelectOnce();
    if (["paint", "new", "erase"].includes(mode)) {
      const label = mode === "erase" ? 0 : mode === "new" ? most + 1 : selected?.label;
      if (mode !== "paint" || selected) viewer.tool = brush(label);
    }
    viewer.redraw();
  }, [mode, selected?.label, place]);

  // A merge waits for a click on the second object.
  const onSelectOnce = () => {
    const from = now.current.selected?.label;
    if (!from) return;
    viewer.addEventListener(
      "click",
      ({ detail }) => {
        setMode("select");
        if (detail.label && detail.label !== from) merge(from, detail.label);
      },
      { once: true },
    );
  };
  const brush = (label) => {
    let runs = [];
    const stroke = () => ({ op: "paint", label, t: place.t, z: place.z, runs });
    return brushTool(
      viewer,
      () => now.current.radius,
      (more) => {
        runs = joinRuns([...runs, ...more]);
        onEdits(preview([...now.current.ops, stroke()]));
      },
      () => {
        if (runs.length) add(stroke());
        if (mode === "new") {
          onSelect({ label, t: place.t });
          setMode("paint");
        }
        runs = [];
      },
    );
  };

  const keys = useRef({});
  keys.current = { Delete: remove, Backspace: remove, m: () => selected && setMode("merge"), z: undo };
  useEffect(() => {
    const onKey = (event) => {
      if (event.target.closest?.("input:not([type=checkbox]):not([type=range]), select, textarea, dialog")) return;
      const isUndo = event.key === "z" && (event.ctrlKey || event.metaKey);
      if (!isUndo && (event.ctrlKey || event.metaKey || event.altKey || event.key === "z")) return;
      if (!keys.current[event.key]) return;
      event.preventDefault();
      keys.current[event.key]();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  useEffect(() => {
    if (!ops.length) return undefined;
    const warn = (event) => event.preventDefault();
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [ops.length]);

  const save = async () => {
    setSaving(true);
    setProblem(null);
    try {
      const next = await call("PATCH", `${jobPath(job.id)}/labels`, { base: job.version || 0, ops });
      setOps([]);
      onSelect(null);
      work.setJob(next);
    } catch (found) {
      setProblem(found);
    } finally {
      setSaving(false);
    }
  };
  const Tool = ({ name, needs, children }) =>
    html`<button type="button" aria-pressed=${mode === name} disabled=${needs && !selected} onClick=${() => setMode(mode === name ? "select" : name)}>${children}</button>`;
  const advice = {
    select: selected
      ? `Object ${selected.label} is selected.`
      : "Click an object in the image, or choose one in the table.",
    merge: "Click the object to merge with.",
    split: "Drag from the middle of one part to the middle of the other.",
    paint: "Drag in the image to add to the object.",
    new: "Drag in the image to paint a new object.",
    erase: "Drag in the image to erase.",
  };
  return html`
    <div class="row wrap" role="group" aria-label="Tools">
      <button type="button" disabled=${!selected} onClick=${remove}>Delete</button>
      <${Tool} name="merge" needs>Merge<//><${Tool} name="split" needs>Split<//><${Tool} name="paint" needs>Paint<//><${Tool} name="new">New object<//><${Tool} name="erase">Erase<//>
      <label class="slider">Brush <input type="range" min="1" max="60" value=${radius} onInput=${(event) => setRadius(Number(event.target.value))} /> ${radius} px</label>
    </div>
    <p class="hint" role="status">${advice[mode]}</p>
    ${
      ops.length > 0 &&
      html`
      <ol class="edits">${ops.map((op) => html`<li>${describe(op)}</li>`)}</ol>
      <div class="actions">
        <button type="button" class="primary" disabled=${isSaving} onClick=${save}>Save ${plural(ops.length, "edit")} as a new version</button>
        <button type="button" onClick=${undo}>Undo</button><button type="button" class="quiet" onClick=${() => setOps([])}>Discard all</button>
      </div>`
    }
    ${problem && html`<${ProblemBox} problem=${problem} />`}
    ${job.version > 0 && !ops.length && html`<p class="hint">This is version ${job.version} of the labels. The first one is kept.</p>`}`;
}
