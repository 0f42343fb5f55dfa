// The first screen: drop images, or open what was done before.
import { get } from "./api.js";
import { isHidden, filesOf } from "./upload.js";
import { ProblemBox, useLoaded, useStored } from "./ui.js";
import { html, useState } from "./vendor/preact.js";
import { ago, bytes, count, plural, problemTitle } from "./words.js";

let waiting = [];

/** Files that were chosen on the first screen, once. */
export function takeFiles() {
  const files = waiting;
  waiting = [];
  return files;
}

/** Open the screen for these files: one is segmented, several become a batch. */
export function openFiles(files) {
  waiting = [...files].filter((file) => !isHidden(file.name));
  if (waiting.length) location.hash = waiting.length === 1 ? "#/image" : "#/new-batch";
  return waiting.length;
}

async function openSample() {
  const reply = await fetch("samples/nuclei.tif");
  openFiles([new File([await reply.blob()], "nuclei.tif", { type: "image/tiff" })]);
}

const SIGNS = { done: "●", failed: "✕", cancelled: "–", expired: "○" };

function rowOfJob(job) {
  const states = {
    done: plural(job.objects ?? 0, "object"),
    failed: problemTitle(job.problem?.title, "failed"),
    cancelled: "cancelled",
    expired: "result expired",
  };
  return {
    href: `#/job/${encodeURIComponent(job.id)}`,
    name: job.input?.name || job.id,
    time: job.times?.created,
    sign: SIGNS[job.status] || "◔",
    tone: job.status,
    text: states[job.status] || `${job.status}${job.progress ? `, ${job.progress} %` : ""}`,
  };
}

function rowOfBatch(batch) {
  const { counts } = batch;
  const all = Object.values(counts).reduce((sum, value) => sum + value, 0);
  const failed = counts.failed ? `, ${counts.failed} failed` : "";
  return {
    href: `#/batch/${encodeURIComponent(batch.id)}`,
    name: batch.name,
    time: batch.times?.created,
    sign: counts.done === all ? "●" : "◔",
    tone: counts.failed ? "failed" : "done",
    text: `${count(counts.done)} of ${plural(all, "image")}${failed}`,
  };
}

function Recent() {
  const [problem, setProblem] = useState(null);
  const [rows] = useLoaded(
    async () => {
      const [jobs, batches] = await Promise.all([get("jobs"), get("batches").catch(() => ({ items: [] }))]);
      const single = jobs.items.filter((job) => !job.batch).map(rowOfJob);
      return [...single, ...batches.items.map(rowOfBatch)]
        .sort((a, b) => String(b.time).localeCompare(String(a.time)))
        .slice(0, 30);
    },
    [],
    setProblem,
  );
  if (problem) return html`<${ProblemBox} problem=${problem} />`;
  if (!rows?.length) return html`<p class="hint">Images that you segment are listed here.</p>`;
  return html`<ul class="recent">${rows.map(
    (row) => html`
    <li><a href=${row.href}>
      <span class=${`sign ${row.tone}`} aria-hidden="true">${row.sign}</span>
      <span class="name">${row.name}</span><span class="what">${row.text}</span><time datetime=${row.time}>${ago(row.time)}</time>
    </a></li>`,
  )}</ul>`;
}

export function Start({ me }) {
  const [isOver, setOver] = useState(false);
  const [isReading, setReading] = useState(false);
  const [note, setNote] = useState("");
  const [atOnce, setAtOnce] = useStored("start_at_once", "1");
  const limit = me?.limits?.upload_bytes;

  const open = (files) => openFiles(files) || setNote("No file was found in what you dropped.");
  const onDrop = async (event) => {
    event.preventDefault();
    setOver(false);
    setReading(true);
    try {
      open(await filesOf(event.dataTransfer));
    } finally {
      setReading(false);
    }
  };
  return html`
    <div class="start">
      <h1>Find the cells in your image</h1>
      <div class=${`drop ${isOver ? "over" : ""}`} onDragOver=${(event) => {
        event.preventDefault();
        setOver(true);
      }} onDragLeave=${() => setOver(false)} onDrop=${onDrop}>
        <svg class="drop-icon" viewBox="0 0 48 48" aria-hidden="true"><path d="M24 32V12m0 0-8 8m8-8 8 8M8 32v6a2 2 0 0 0 2 2h28a2 2 0 0 0 2-2v-6" /></svg>
        <p class="large">${isReading ? "Reading the folder…" : "Drop an image or a folder here"}</p>
        <div class="actions center">
          <label class="button primary">Choose files<input class="visually-hidden" type="file" multiple onChange=${(event) => open(event.target.files)} /></label>
          <label class="button">Choose a folder<input class="visually-hidden" type="file" webkitdirectory multiple onChange=${(event) => open(event.target.files)} /></label>
        </div>
        <p class="hint">TIFF, OME-TIFF, PNG, JPEG, NPY, CZI, ND2, LIF, zip${limit ? ` · up to ${bytes(limit)}` : ""}</p>
      </div>
      <p role="status">${note}</p>
      <p class="row between">
        <label class="check"><input type="checkbox" checked=${atOnce === "1"} onChange=${(event) => setAtOnce(event.target.checked ? "1" : "0")} /> Start at once with the suggested settings</label>
        <button type="button" class="link" onClick=${openSample}>Try an example: nuclei.tif</button>
      </p>
      <section aria-labelledby="recent-title"><h2 id="recent-title">Recent</h2><${Recent} /></section>
    </div>`;
}
