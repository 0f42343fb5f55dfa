// One image: from its upload to its objects. Puts the parts together; each part is a file of its own.
import { get, getOnce, jobPath, Problem, until, uploadPath, viewBase } from "./api.js";
import { FilesMenu, QuickFiles } from "./files.js";
import { ObjectTable, summary } from "./objects.js";
import { firstChannels, labelLayers, Picture, shownChannels } from "./picture.js";
import { choicesOf, NO_CHOICES, Settings } from "./settings.js";
import { useShortcuts } from "./shortcuts.js";
import { takeFiles } from "./start.js";
import { describeJob, describeUpload, POOR_QUALITY, qualityOf } from "./states.js";
import { Tabs } from "./tabs.js";
import { copy, ProblemBox, Progress, Status, useLoaded } from "./ui.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { colorsByValue } from "./viewer/colors.js";
import { drawTails } from "./viewer/marks.js";
import { diameterTool, regionTool } from "./viewer/tools.js";
import { columnTitle, number, sentences } from "./words.js";
import { useWork } from "./work.js";

const MASK = { isVisible: true, fill: true, outline: true, opacity: 0.35, colorBy: "", hasSecond: true, hasPoints: true, tails: 10 };

const AUTO_SHARES = [0.995, 0.98, 0.95, 0.999];

const startsAtOnce = () => {
  try {
    return localStorage.getItem("start_at_once") !== "0";
  } catch {
    return true;
  }
};

function choicesOfJob(job) {
  return { ...NO_CHOICES, kind: job.kind || "", model: job.model || "", options: { ...job.options } };
}

/** The view of a path such as jobs/ID, waited for until it is ready; `preparing` is its progress until then. */
function useView(path, again) {
  const [view, setView] = useState(null);
  const [preparing, setPreparing] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    if (!path) return undefined;
    const stop = new AbortController();
    setProblem(null);
    until(async () => {
      const found = await get(`${path}/view`);
      if (found.problem) throw new Problem(found.problem);
      setPreparing(found.ready ? null : found.progress);
      return found.ready ? found : undefined;
    }, { signal: stop.signal, pause: 250 }).then((found) => found && setView({ ...found, base: viewBase(path) }), (each) => !stop.signal.aborted && setProblem(each));
    return () => stop.abort();
  }, [path, again]);
  return { view, preparing, problem };
}

const TIP_TEXT = {
  nucleus: "Draw a nucleus", channel: "Choose another channel", model: "Choose another model", contrast: "Auto contrast",
  axes: "Correct the axes", again: "Run again",
};

function StateBox({ work, table, onTip }) {
  if (work.problem) return html`<${ProblemBox} problem=${work.problem}>${work.upload && html`<button type="button" onClick=${() => onTip("again")}>Run again</button>`}<//>`;
  if (work.phase === "stopped") return html`<div class="box quiet"><strong>Upload cancelled</strong><div class="actions"><a class="button" href="#/">Choose another image</a></div></div>`;
  if (work.phase === "unreadable") {
    return html`<${ProblemBox} problem=${work.upload.problem || { title: "This file cannot be read" }}><a class="button" href="#/">Choose another file</a><//>`;
  }
  const state = work.job ? describeJob(work.job)
    : work.phase === "uploading" ? describeUpload(work.progress)
    : work.phase === "reading" || work.isStarting ? { tone: "busy", title: work.isStarting ? "Starting" : "Reading the file", progress: null }
    : work.phase === "ready" ? { tone: "quiet", title: "Ready to run" } : { tone: "busy", title: "Opening", progress: null };
  const said = sentences(state.title, state.detail);
  if (work.job?.status === "done") state.title = html`<${Result} job=${work.job} table=${table} />`;
  const isBusy = state.progress !== undefined;
  return html`
    <div class=${`box ${state.tone}`} data-testid="state" data-status=${work.job?.status || work.phase}>
      <div class="row between wrap">
        <span><span class=${`dot ${state.tone}`} aria-hidden="true"></span><strong>${state.title}</strong>${isBusy && state.progress !== null && work.job ? ` ${Math.round(state.progress)} %` : ""}</span>
        ${state.canCancel && html`<button type="button" onClick=${work.cancel}>Cancel</button>`}
        ${work.job?.status === "done" && work.job.objects !== 0 && html`<${QuickFiles} job=${work.job} />`}
      </div>
      ${state.detail && html`<p>${state.detail}</p>`}
      ${state.hint && html`<p class="hint">${state.hint}</p>`}
      ${isBusy && html`<${Progress} value=${state.progress} label=${state.title} />`}
      ${state.tips?.length > 0 && html`<div class="actions">${state.tips.map((tip) => html`<button type="button" onClick=${() => onTip(tip)}>${TIP_TEXT[tip]}</button>`)}</div>`}
      ${work.isAway && html`<p class="hint">The server cannot be reached. Trying again in a few seconds.</p>`}
      <${Status} text=${said} />
    </div>`;
}

function Result({ job, table }) {
  const objects = job.objects ?? (table ? new Set(table.labels).size : null);
  const typical = table && summary(table).split(" · ")[1];
  const quality = qualityOf(job);
  return html`
    <span class="result"><span data-testid="objects">${objects ?? "–"}</span> ${objects === 1 ? "object" : "objects"}</span>
    ${typical && html` <span class="hint">${typical}</span>`}
    ${quality !== null && objects > 0 && html` <span class=${`tag ${quality < POOR_QUALITY ? "warn" : "good"}`}>quality ${number(quality)}</span>`}`;
}

function useTable(job) {
  const [problem, setProblem] = useState(null);
  const [table] = useLoaded(async () => {
    setProblem(null);
    if (job?.status !== "done") return null;
    return new ObjectTable(await get(`${jobPath(job.id)}/objects?format=json`));
  }, [job?.id, job?.status, job?.version], setProblem);
  return [job?.status === "done" ? table : null, problem];
}

export function ImageScreen({ place: address }) {
  const [source] = useState(() => address.name === "job" ? { jobId: address.id } : address.name === "upload" ? { uploadId: address.id } : { file: takeFiles()[0] });
  const [choices, setChoices] = useState(NO_CHOICES);
  const [viewer, setViewer] = useState(null);
  const [channels, setChannels] = useState([]);
  const [mask, setMask] = useState(MASK);
  const [selected, setSelected] = useState(null);
  const [only, setOnly] = useState(null);
  const [tool, setTool] = useState("");
  const [place, setPlace] = useState({ t: 0, z: 0 });
  const [shared, setShared] = useState("");
  const [edits, setEdits] = useState(null);
  const [tracks, setTracks] = useState(null);
  const at = useRef(address);
  const change = (changes) => setChoices((before) => ({ ...before, ...changes }));
  const changeMask = (changes) => setMask((before) => ({ ...before, ...changes }));

  const onAddress = (name, id) => {
    at.current = { name, id };
    history.replaceState(null, "", `#/${name}/${encodeURIComponent(id)}`);
  };
  const onFacts = async (upload) => {
    const found = choicesOf(upload.facts, await getOnce("kinds").catch(() => []));
    setChoices(found);
    return startsAtOnce() ? found : null;
  };
  const work = useWork(source, { onAddress, onFacts });
  const { job, upload } = work;
  const name = job?.input?.name || upload?.name || source.file?.name || "Image";
  const [kinds] = useLoaded(() => getOnce("kinds"), []);
  const [models] = useLoaded(() => getOnce("models"), []);
  useEffect(() => {
    document.title = `${name} · Segment`;
  }, [name]);
  useEffect(() => {
    if (job && source.jobId === job.id && !choices.kind) setChoices(choicesOfJob(job));
  }, [job?.id]);

  // The picture of the upload is shown until the job has one of its own, with labels.
  const isDone = job?.status === "done";
  const uploadId = upload?.state === "ready" ? upload.id : null;
  const path = isDone ? jobPath(job.id) : uploadId ? uploadPath(uploadId) : job ? jobPath(job.id) : null;
  const { view, preparing, problem: viewProblem } = useView(path, job?.version);
  const [table, tableProblem] = useTable(job);
  const measured = channels.length ? channels : upload?.facts?.channels || [];

  useEffect(() => {
    if (!viewer || !view) return undefined;
    const isFirst = !viewer.view;
    viewer.show({ base: view.base, view, version: job?.version || 0 });
    if (isFirst) {
      const { x, y, zoom, t, z } = Object.fromEntries(Object.entries(address.query || {}).map(([key, value]) => [key, Number(value)]));
      if (zoom) viewer.goTo({ x, y, zoom, t: t || 0, z: z || 0 });
    }
    if (!channels.length) setChannels(firstChannels(upload?.facts || view, view.layers.find((layer) => layer.name === "image")?.channels || 1));
    return undefined;
  }, [viewer, view]);

  // Windows that the server doesn't know come from the pixels. Each further call is stronger, then it begins again.
  const strength = useRef(0);
  const auto = async () => {
    const share = AUTO_SHARES[strength.current++ % AUTO_SHARES.length];
    const windows = await viewer.windows(channels.map((channel) => channel.index), [1 - share, share]);
    setChannels((before) => before.map((channel) => ({ ...channel, ...windows.find((each) => each.index === channel.index) })));
  };
  useEffect(() => {
    if (viewer?.view && channels.some((channel) => channel.low === null)) auto();
  }, [viewer, channels.length, view]);

  useEffect(() => {
    if (!viewer) return;
    viewer.setStyle({ channels: shownChannels(channels) });
  }, [viewer, channels]);
  const coloring = useMemo(() => {
    if (!table || !mask.colorBy) return null;
    const values = table.column(mask.colorBy);
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    const [low, high] = [0.02, 0.98].map((share) => sorted[Math.round(share * (sorted.length - 1))] ?? 0);
    return { low, high, colors: colorsByValue(table.labels, values, { low, high }) };
  }, [table, mask.colorBy]);
  useEffect(() => {
    viewer?.setStyle({ labels: labelLayers({ ...mask, colors: coloring?.colors || null, selected: selected?.label || 0, only }, view), edits });
  }, [viewer, view, mask, coloring, selected, only, edits]);
  useEffect(() => {
    if (!viewer) return;
    viewer.layers = tracks && mask.tails ? [(context, each) => drawTails(context, each, tracks, mask.tails)] : [];
    viewer.redraw();
  }, [viewer, tracks, mask.tails]);

  // Events of the viewer
  useEffect(() => {
    if (!viewer) return undefined;
    let timer = 0;
    const onMove = ({ detail }) => {
      if (detail.isOtherPlane) setPlace({ t: detail.t, z: detail.z });
      clearTimeout(timer);
      timer = setTimeout(() => {
        const query = new URLSearchParams({ x: detail.x.toFixed(1), y: detail.y.toFixed(1), zoom: detail.zoom.toPrecision(4), t: detail.t, z: detail.z });
        if (at.current.id) history.replaceState(null, "", `#/${at.current.name}/${encodeURIComponent(at.current.id)}?${query}`);
      }, 400);
    };
    const onClick = ({ detail }) => setSelected(detail.label ? { label: detail.label, t: viewer.place.t, shift: detail.shift } : null);
    viewer.addEventListener("move", onMove);
    viewer.addEventListener("click", onClick);
    return () => {
      clearTimeout(timer);
      viewer.removeEventListener("move", onMove);
      viewer.removeEventListener("click", onClick);
    };
  }, [viewer]);
  const hasPoints = view?.layers.some((layer) => layer.name === "points") && mask.hasPoints;
  useEffect(() => {
    if (!viewer || !view) return;
    viewer.points = null;
    if (hasPoints) get(`${path}/view/points/${place.t}/${place.z}`).then((points) => { viewer.points = points; viewer.redraw(); }, () => {});
    else viewer.redraw();
  }, [viewer, view, place, hasPoints]);

  const select = (object, isJump) => {
    setSelected(object);
    if (!isJump || !viewer || !table) return;
    const row = table.find(object.label, object.t);
    const { width } = viewer.size;
    const zoom = Math.max(viewer.place.zoom, Math.min(4, (width * 0.12) / (row ? table.sizeOf(row) : 40)));
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

  const useTool = (next) => {
    const isOn = next && next !== tool;
    setTool(isOn ? next : "");
    const end = () => setTool("");
    if (!viewer) return;
    viewer.tool = null;
    if (isOn && next === "nucleus") viewer.tool = diameterTool(viewer, (size) => { change({ options: { ...choices.options, object_diameter_px: Number(size.toPrecision(3)), scale: "" } }); viewer.tool = null; end(); });
    if (isOn && next === "region") viewer.tool = regionTool(viewer, (region) => { change({ region }); viewer.tool = null; end(); });
  };
  const run = () => {
    setSelected(null);
    setOnly(null);
    setEdits(null);
    work.run(choices);
  };
  const focusOn = (id) => {
    const element = document.getElementById(id);
    element?.closest("details")?.setAttribute("open", "");
    element?.scrollIntoView({ block: "center" });
    element?.focus();
  };
  const tip = (which) => {
    if (which === "nucleus") { useTool("nucleus"); focusOn("draw-nucleus"); }
    else if (which === "contrast") auto();
    else if (which === "again") run();
    else focusOn({ channel: "role-0", model: "model", axes: "axes" }[which]);
  };
  useShortcuts({ viewer, mask, changeMask, auto, channels, setChannels, step, selectMiddle });

  const share = async () => {
    setShared((await copy(location.href)) ? "Link copied" : "");
    setTimeout(() => setShared(""), 3000);
  };
  const colorings = (table?.measures || []).map((each) => [each, columnTitle(each, measured)]);
  const description = `${name}${view ? `, ${view.width} × ${view.height} pixels` : ""}. ${isDone && table ? summary(table) : ""}`;
  const placeholder = viewProblem ? html`<${ProblemBox} problem=${viewProblem} tone="warn" />`
    : !view && preparing !== null ? html`<p>Preparing the picture, ${Math.round(preparing || 0)} %</p><${Progress} value=${preparing} label="Preparing the picture" />`
    : !view && work.phase !== "unreadable" && work.phase !== "stopped" ? html`<p>${work.phase === "uploading" ? "The picture comes after the upload." : "Loading the picture…"}</p>` : null;
  if (!source.file && !source.jobId && !source.uploadId) {
    return html`<div class="start"><h1>No image is open</h1><p>The page was loaded again before the upload began.</p><a class="button primary" href="#/">Choose an image</a></div>`;
  }
  return html`
    <div class="image-screen">
      <div class="title row between">
        <h1>${name}</h1>
        <div class="row">
          <span role="status" class="hint">${shared}</span>
          ${at.current.id && html`<button type="button" onClick=${share}>Share</button>`}
          <${FilesMenu} job=${isDone ? job : null} />
        </div>
      </div>
      <div class="columns">
        <div class="wide">
          <${StateBox} work=${work} table=${table} onTip=${tip} />
          <${Picture} viewer=${viewer} onViewer=${setViewer} view=${view} channels=${channels} onChannels=${setChannels} onAuto=${auto}
            mask=${{ ...mask, legend: coloring }} onMask=${changeMask} colorings=${colorings} place=${place} isHidden=${["unreadable", "stopped"].includes(work.phase)} description=${description} placeholder=${placeholder} />
          ${isDone && html`<${Tabs} job=${job} work=${work} table=${table} problem=${tableProblem} channels=${measured} view=${view} viewer=${viewer} place=${place}
            selected=${selected} onSelect=${select} only=${only} onOnly=${setOnly} onEdits=${setEdits} onTracks=${setTracks} mask=${mask} onMask=${changeMask} />`}
        </div>
        <${Settings} work=${work} kinds=${kinds} models=${models} choices=${choices} onChange=${change} view=${view} tool=${tool} onTool=${useTool} onRun=${run} />
      </div>
    </div>`;
}
