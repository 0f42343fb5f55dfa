// One image: from its upload to its objects. Puts the parts together; each part is a file of its own.
import { getOnce } from "./api.js";
import { FilesMenu } from "./files.js";
import { summary } from "./objects.js";
import {
  pathOf,
  useChannels,
  useMask,
  usePlace,
  usePoints,
  useSelection,
  useTable,
  useTool,
  useView,
} from "./picture_state.js";
import { Picture } from "./picture.js";
import { choicesOf, NO_CHOICES, Settings } from "./settings.js";
import { useShortcuts } from "./shortcuts.js";
import { takeFiles } from "./start.js";
import { StateBox } from "./state_box.js";
import { Tabs } from "./tabs.js";
import { copy, ProblemBox, Progress, useLoaded } from "./ui.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { columnTitle } from "./words.js";
import { useWork } from "./work.js";

function startsAtOnce() {
  try {
    return localStorage.getItem("start_at_once") !== "0";
  } catch {
    return true; // no storage in this browser
  }
}

const sourceOf = ({ name, id }) =>
  name === "job" ? { jobId: id } : name === "upload" ? { uploadId: id } : { file: takeFiles()[0] };

/** Choices of a job, and the work on the image. `write(query)` writes the address of the screen. */
function useJob(address) {
  const [source] = useState(() => sourceOf(address));
  const [choices, setChoices] = useState(NO_CHOICES);
  const at = useRef(address);
  const write = (query) =>
    at.current.id &&
    history.replaceState(null, "", `#/${at.current.name}/${encodeURIComponent(at.current.id)}${query}`);
  const onAddress = (name, id) => {
    at.current = { name, id };
    write("");
  };
  const onFacts = async (upload) => {
    const found = choicesOf(upload.facts, await getOnce("kinds").catch(() => []));
    setChoices(found);
    return startsAtOnce() ? found : null;
  };
  const work = useWork(source, { onAddress, onFacts });
  const { job } = work;
  useEffect(() => {
    if (!job || source.jobId !== job.id || choices.kind) return;
    setChoices({ ...NO_CHOICES, kind: job.kind || "", model: job.model || "", options: { ...job.options } });
  }, [job?.id]);
  const change = (changes) => setChoices((before) => ({ ...before, ...changes }));
  return { source, work, choices, change, write, hasAddress: Boolean(at.current.id) };
}

function Title({ name, job, hasAddress }) {
  const [note, setNote] = useState("");
  const share = async () => {
    setNote((await copy(location.href)) ? "Link copied" : "");
    setTimeout(() => setNote(""), 3000);
  };
  return html`
    <div class="title row between">
      <h1>${name}</h1>
      <div class="row">
        <span role="status" class="hint">${note}</span>
        ${hasAddress && html`<button type="button" onClick=${share}>Share</button>`}
        <${FilesMenu} job=${job?.status === "done" ? job : null} />
      </div>
    </div>`;
}

/** What is shown where the picture will be. */
function placeholderOf(phase, { view, preparing, problem }) {
  if (problem) return html`<${ProblemBox} problem=${problem} tone="warn" />`;
  if (view) return null;
  if (preparing !== null) {
    return html`<p>Preparing the picture, ${Math.round(preparing || 0)} %</p><${Progress} value=${preparing} label="Preparing the picture" />`;
  }
  return html`<p>${phase === "uploading" ? "The picture comes after the upload." : "Loading the picture…"}</p>`;
}

/** Open what an element is in, and go to it. */
function focusOn(id) {
  const element = document.getElementById(id);
  element?.closest("details")?.setAttribute("open", "");
  element?.scrollIntoView({ block: "center" });
  element?.focus();
}

export function ImageScreen({ place: address }) {
  const { source, work, choices, change, write, hasAddress } = useJob(address);
  const { job, upload } = work;
  const [viewer, setViewer] = useState(null);
  const shown = useView(pathOf(work), job?.version);
  const { view } = shown;
  const [table, problem] = useTable(job);
  const place = usePlace(viewer, view, address, (at) =>
    write(
      `?${new URLSearchParams({ x: at.x.toFixed(1), y: at.y.toFixed(1), zoom: at.zoom.toPrecision(4), t: at.t, z: at.z })}`,
    ),
  );
  const { channels, setChannels, auto } = useChannels(viewer, view, upload?.facts);
  const labels = useMask(viewer, view, table);
  const { mask, changeMask, coloring } = labels;
  const { select, step, selectMiddle } = useSelection(viewer, table, labels);
  const [tool, setTool] = useTool(viewer, {
    onDiameter: (size) =>
      change({ options: { ...choices.options, object_diameter_px: Number(size.toPrecision(3)), scale: "" } }),
    onRegion: (region) => change({ region }),
  });
  usePoints(viewer, view, place, mask.hasPoints);
  useShortcuts({ viewer, mask, changeMask, auto, channels, setChannels, step, selectMiddle });
  const [kinds] = useLoaded(() => getOnce("kinds"), []);
  const [models] = useLoaded(() => getOnce("models"), []);
  const name = job?.input?.name || upload?.name || source.file?.name || "Image";
  useEffect(() => {
    document.title = `${name} · Segment`;
  }, [name]);
  const run = () => {
    labels.reset();
    work.run(choices);
  };
  const tips = {
    contrast: auto,
    again: run,
    channel: () => focusOn("role-0"),
    model: () => focusOn("model"),
    axes: () => focusOn("axes"),
  };
  tips.nucleus = () => {
    setTool("nucleus");
    focusOn("draw-nucleus");
  };
  if (!source.file && !source.jobId && !source.uploadId) {
    return html`<div class="start"><h1>No image is open</h1><p>The page was loaded again before the upload began.</p>
      <a class="button primary" href="#/">Choose an image</a></div>`;
  }
  const known = channels.length ? channels : upload?.facts?.channels || [];
  const description = `${name}${view ? `, ${view.width} × ${view.height} pixels` : ""}. ${table ? summary(table) : ""}`;
  return html`
    <div class="image-screen">
      <${Title} name=${name} job=${job} hasAddress=${hasAddress} />
      <div class="columns">
        <div class="wide">
          <${StateBox} work=${work} table=${table} onTip=${(which) => tips[which]()} />
          <${Picture} viewer=${viewer} onViewer=${setViewer} view=${view} channels=${channels} onChannels=${setChannels} onAuto=${auto}
            mask=${{ ...mask, legend: coloring }} onMask=${changeMask} colorings=${(table?.measures || []).map((each) => [each, columnTitle(each, known)])}
            place=${place} isHidden=${["unreadable", "stopped"].includes(work.phase)} description=${description} placeholder=${placeholderOf(work.phase, shown)} />
          ${
            job?.status === "done" &&
            html`<${Tabs} job=${job} work=${work} table=${table} problem=${problem} channels=${known} view=${view} viewer=${viewer} place=${place}
            selected=${labels.selected} onSelect=${select} only=${labels.only} onOnly=${labels.setOnly} onEdits=${labels.setEdits} onTracks=${labels.setTracks} mask=${mask} onMask=${changeMask} />`
          }
        </div>
        <${Settings} work=${work} kinds=${kinds} models=${models} choices=${choices} onChange=${change} view=${view} tool=${tool} onTool=${setTool} onRun=${run} />
      </div>
    </div>`;
}
