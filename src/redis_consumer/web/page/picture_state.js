// Hooks that bind the viewer to the state of the image screen: view, channels, mask, place, selection.
import { get, jobPath, Problem, until, uploadPath, viewBase } from "./api.js";
import { ObjectTable } from "./objects.js";
import { firstChannels, labelLayers, shownChannels } from "./picture.js";
import { useLoaded } from "./ui.js";
import { useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { colorsByValue } from "./viewer/colors.js";
import { drawTails } from "./viewer/marks.js";
import { diameterTool, regionTool } from "./viewer/tools.js";

/** Path of the picture: that of the upload until the job has one of its own, with labels. */
export function pathOf({ job, upload }) {
  if (job?.status === "done") return jobPath(job.id);
  if (upload?.state === "ready") return uploadPath(upload.id);
  return job ? jobPath(job.id) : null;
}

/** The view of a path, waited for until it is ready; `preparing` is its progress until then. */
export function useView(path, version) {
  const [state, setState] = useState({ view: null, preparing: null, problem: null });
  useEffect(() => {
    if (!path) return undefined;
    const stop = new AbortController();
    const change = (changes) => !stop.signal.aborted && setState((before) => ({ ...before, ...changes }));
    change({ problem: null });
    const look = async () => {
      const found = await get(`${path}/view`);
      if (found.problem && !found.ready) throw new Problem(found.problem);
      change({ preparing: found.ready ? null : found.progress });
      return found.ready ? found : undefined;
    };
    until(look, { signal: stop.signal, pause: 250 }).then(
      (found) => found && change({ view: { ...found, base: viewBase(path) } }),
      (problem) => change({ problem }),
    );
    return () => stop.abort();
  }, [path, version]);
  return state;
}

/** The table of objects of a finished job, and the problem of getting it. */
export function useTable(job) {
  const [problem, setProblem] = useState(null);
  const load = async () => {
    setProblem(null);
    if (job?.status !== "done") return null;
    return new ObjectTable(await get(`${jobPath(job.id)}/objects?format=json`));
  };
  const [table] = useLoaded(load, [job?.id, job?.status, job?.version], setProblem);
  return [job?.status === "done" ? table : null, problem];
}

// Shares of pixels below white. Each further call of auto contrast is stronger, then it begins again.
const AUTO_SHARES = [0.995, 0.98, 0.95, 0.999];

/** Channels as they are shown. Windows that the server doesn't know come from the pixels. */
export function useChannels(viewer, view, facts) {
  const [channels, setChannels] = useState([]);
  const strength = useRef(0);
  const auto = async () => {
    const share = AUTO_SHARES[strength.current++ % AUTO_SHARES.length];
    const indices = channels.map((channel) => channel.index);
    const windows = await viewer.windows(indices, [1 - share, share]);
    const windowOf = (channel) => windows.find((each) => each.index === channel.index);
    setChannels((before) => before.map((channel) => ({ ...channel, ...windowOf(channel) })));
  };
  useEffect(() => {
    if (!view || channels.length) return;
    const image = view.layers.find((layer) => layer.name === "image");
    setChannels(firstChannels(facts || view, image?.channels || 1));
  }, [view]);
  useEffect(() => {
    if (viewer?.view && channels.some((channel) => channel.low === null)) auto();
  }, [viewer, channels.length, view]);
  useEffect(() => {
    viewer?.setStyle({ channels: shownChannels(channels) });
  }, [viewer, channels]);
  return { channels, setChannels, auto };
}

const MASK = {
  isVisible: true,
  fill: true,
  outline: true,
  opacity: 0.35,
  colorBy: "",
  hasSecond: true,
  hasPoints: true,
  tails: 10,
};

/** Colours of labels by a column of the table: {low, high, colors}. Two percent on each side are cut off. */
function coloringOf(table, name) {
  if (!table || !name) return null;
  const values = table.column(name);
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const [low, high] = [0.02, 0.98].map((share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0);
  return { low, high, colors: colorsByValue(table.labels, values, { low, high }) };
}

/** The mask: how labels are shown, which are selected, edits that aren't saved, tails of tracks. */
export function useMask(viewer, view, table) {
  const [mask, setMask] = useState(MASK);
  const [selected, setSelected] = useState(null);
  const [only, setOnly] = useState(null);
  const [edits, setEdits] = useState(null);
  const [tracks, setTracks] = useState(null);
  const coloring = useMemo(() => coloringOf(table, mask.colorBy), [table, mask.colorBy]);
  useEffect(() => {
    const style = { ...mask, colors: coloring?.colors || null, selected: selected?.label || 0, only };
    viewer?.setStyle({ labels: labelLayers(style, view), edits });
  }, [viewer, view, mask, coloring, selected, only, edits]);
  useEffect(() => {
    if (!viewer) return;
    const drawn = tracks && mask.tails;
    viewer.layers = drawn ? [(context, each) => drawTails(context, each, tracks, mask.tails)] : [];
    viewer.redraw();
  }, [viewer, tracks, mask.tails]);
  const reset = () => {
    setSelected(null);
    setOnly(null);
    setEdits(null);
  };
  const changeMask = (changes) => setMask((before) => ({ ...before, ...changes }));
  return { mask, changeMask, coloring, selected, setSelected, only, setOnly, setEdits, setTracks, reset };
}

/** Show the view. The address names the place (x, y, zoom, t, z): it is read at first, and follows the viewer. */
export function usePlace(viewer, view, address, onMove) {
  const [place, setPlace] = useState({ t: 0, z: 0 });
  useEffect(() => {
    if (!viewer || !view) return;
    const isFirst = !viewer.view;
    viewer.show({ base: view.base, view });
    const entries = Object.entries(address.query || {}).map(([name, value]) => [name, Number(value)]);
    const { zoom, ...rest } = Object.fromEntries(entries.filter(([, value]) => Number.isFinite(value)));
    if (isFirst && zoom) viewer.goTo({ zoom, ...rest });
  }, [viewer, view]);
  useEffect(() => {
    if (!viewer) return undefined;
    let timer = 0;
    const listener = ({ detail }) => {
      if (detail.isOtherPlane) setPlace({ t: detail.t, z: detail.z });
      clearTimeout(timer);
      timer = setTimeout(() => onMove(detail), 400);
    };
    viewer.addEventListener("move", listener);
    return () => {
      clearTimeout(timer);
      viewer.removeEventListener("move", listener);
    };
  }, [viewer]);
  return place;
}

/** Points of the plane that is shown. */
export function usePoints(viewer, view, place, isShown) {
  const hasPoints = isShown && view?.layers.some((layer) => layer.name === "points");
  useEffect(() => {
    if (!viewer || !view) return;
    viewer.points = null;
    viewer.redraw();
    if (!hasPoints) return;
    const show = (points) => {
      viewer.points = points;
      viewer.redraw();
    };
    get(`${view.base}/points/${place.t}/${place.z}`).then(show, () => {});
  }, [viewer, view, place, hasPoints]);
}

/** Selection of objects: `select(object, isJump)`, `step(by)` through the table, `selectMiddle()`. */
export function useSelection(viewer, table, { selected, setSelected }) {
  useEffect(() => {
    if (!viewer) return undefined;
    const listener = ({ detail }) =>
      setSelected(detail.label ? { label: detail.label, t: viewer.place.t, shift: detail.shift } : null);
    viewer.addEventListener("click", listener);
    return () => viewer.removeEventListener("click", listener);
  }, [viewer]);
  const select = (object, isJump) => {
    setSelected(object);
    if (!isJump || !viewer || !table) return;
    const row = table.find(object.label, object.t);
    const whole = (viewer.size.width * 0.12) / (row ? table.sizeOf(row) : 40);
    const zoom = Math.max(viewer.place.zoom, Math.min(4, whole));
    viewer.goTo({ x: object.x, y: object.y, t: object.t ?? 0, z: object.z ?? 0, zoom });
  };
  const step = (by) => {
    if (!table?.rows.length) return;
    const index = table.rows.findIndex((row) => table.value(row, table.key) === selected?.label);
    const row = table.rows[(index + by + table.rows.length) % table.rows.length];
    select({ label: table.value(row, table.key), ...table.placeOf(row) }, true);
  };
  const selectMiddle = async () => {
    const found = await viewer.at(viewer.place.x, viewer.place.y);
    setSelected(found.label ? { label: found.label, t: viewer.place.t } : null);
  };
  return { select, step, selectMiddle };
}

/** A tool of the settings that draws on the image: "nucleus" or "region". Returns its name and a switch. */
export function useTool(viewer, { onDiameter, onRegion }) {
  const [tool, setTool] = useState("");
  const toggle = (name) => {
    if (!viewer) return;
    const end = (use) => (found) => {
      use(found);
      viewer.tool = null;
      setTool("");
    };
    const makers = {
      nucleus: () => diameterTool(viewer, end(onDiameter)),
      region: () => regionTool(viewer, end(onRegion)),
    };
    const isOn = name !== tool;
    viewer.tool = isOn ? makers[name]() : null;
    setTool(isOn ? name : "");
    viewer.redraw();
  };
  return [tool, toggle];
}
