// The box over the image: what is going on, what was found, and what to try.
import { QuickFiles } from "./files.js";
import { summary } from "./objects.js";
import { describeJob, describeUpload, POOR_QUALITY, qualityOf } from "./states.js";
import { ProblemBox, Progress, Status } from "./ui.js";
import { html } from "./vendor/preact.js";
import { number, sentences } from "./words.js";

const TIP_TEXT = {
  nucleus: "Draw a nucleus",
  channel: "Choose another channel",
  model: "Choose another model",
  contrast: "Auto contrast",
  axes: "Correct the axes",
  again: "Run again",
};

function Result({ job, table }) {
  const objects = job.objects ?? (table ? new Set(table.labels).size : null);
  const typical = table && summary(table).split(" · ")[1];
  const quality = qualityOf(job);
  const tone = quality < POOR_QUALITY ? "warn" : "good";
  return html`
    <span class="result"><span data-testid="objects">${objects ?? "–"}</span> ${objects === 1 ? "object" : "objects"}</span>
    ${typical && html` <span class="hint">${typical}</span>`}
    ${quality !== null && objects > 0 && html` <span class=${`tag ${tone}`}>quality ${number(quality)}</span>`}`;
}

/** State of the work on an image, see states.js. */
function stateOf(work) {
  if (work.job) return describeJob(work.job);
  if (work.phase === "uploading") return describeUpload(work.progress);
  if (work.isStarting) return { tone: "busy", title: "Starting", progress: null };
  if (work.phase === "reading") return { tone: "busy", title: "Reading the file", progress: null };
  if (work.phase === "ready") return { tone: "quiet", title: "Ready to run" };
  return { tone: "busy", title: "Opening", progress: null };
}

/** `onTip` gets the name of what to try. */
export function StateBox({ work, table, onTip }) {
  const { job } = work;
  if (work.problem) {
    return html`<${ProblemBox} problem=${work.problem}>
      ${work.upload && html`<button type="button" onClick=${() => onTip("again")}>Run again</button>`}<//>`;
  }
  if (work.phase === "stopped") {
    return html`<div class="box quiet"><strong>Upload cancelled</strong>
      <div class="actions"><a class="button" href="#/">Choose another image</a></div></div>`;
  }
  if (work.phase === "unreadable") {
    return html`<${ProblemBox} problem=${work.upload.problem || { title: "This file cannot be read" }}>
      <a class="button" href="#/">Choose another file</a><//>`;
  }
  const state = stateOf(work);
  const isDone = job?.status === "done";
  const isBusy = state.progress !== undefined;
  const percent = isBusy && state.progress !== null && job ? ` ${Math.round(state.progress)} %` : "";
  return html`
    <div class=${`box ${state.tone}`} data-testid="state" data-status=${job?.status || work.phase}>
      <div class="row between wrap">
        <span><span class=${`dot ${state.tone}`} aria-hidden="true"></span>
          ${isDone ? html`<${Result} job=${job} table=${table} />` : html`<strong>${state.title}</strong>`}${percent}</span>
        ${state.canCancel && html`<button type="button" onClick=${work.cancel}>Cancel</button>`}
        ${isDone && job.objects !== 0 && html`<${QuickFiles} job=${job} />`}
      </div>
      ${state.detail && html`<p>${state.detail}</p>`}
      ${state.hint && html`<p class="hint">${state.hint}</p>`}
      ${isBusy && html`<${Progress} value=${state.progress} label=${state.title} />`}
      ${
        state.tips?.length > 0 &&
        html`<div class="actions">${state.tips.map(
          (tip) => html`
        <button type="button" onClick=${() => onTip(tip)}>${TIP_TEXT[tip]}</button>`,
        )}</div>`
      }
      ${work.isAway && html`<p class="hint">The server cannot be reached. Trying again in a few seconds.</p>`}
      <${Status} text=${sentences(state.title, state.detail)} />
    </div>`;
}
