// List of batches.
import { get } from "./api.js";
import { ProblemBox, useLoaded } from "./ui.js";
import { html, useState } from "./vendor/preact.js";
import { ago, count, plural } from "./words.js";

/** Shares of a batch as a bar with a text. */
export function BatchBar({ counts }) {
  const all = Object.values(counts).reduce((sum, value) => sum + value, 0) || 1;
  const parts = ["done", "failed", "running", "cancelled"].filter((name) => counts[name]);
  return html`<div class="bar" role="img" aria-label=${countsText(counts)}>${parts.map((name) => html`<span class=${name} style=${{ width: `${(100 * counts[name]) / all}%` }}></span>`)}</div>`;
}

export const countsText = (counts) =>
  ["done", "failed", "running", "waiting", "cancelled"]
    .filter((name) => counts[name])
    .map((name) => `${count(counts[name])} ${name}`)
    .join(" · ") || "empty";

const listBatches = async () => (await get("batches")).items;

export function Batches() {
  const [problem, setProblem] = useState(null);
  const [batches] = useLoaded(listBatches, [], setProblem);
  return html`
    <div class="title row between"><h1>Batches</h1><a class="button primary" href="#/">New batch</a></div>
    ${
      problem
        ? html`<${ProblemBox} problem=${problem} />`
        : !batches
          ? html`<p class="hint">Loading…</p>`
          : !batches.length
            ? html`<div class="card"><p>There is no batch yet. Drop a folder, or choose several files, on the first page.</p></div>`
            : html`<ul class="stack plain">${batches.map(
                (batch) => html`
        <li class="card"><div class="row between wrap"><a href=${`#/batch/${encodeURIComponent(batch.id)}`}><strong>${batch.name}</strong></a><span class="hint">${ago(batch.times?.created)}</span></div>
          <${BatchBar} counts=${batch.counts} />
          <p class="hint">${countsText(batch.counts)}${batch.objects ? ` · ${plural(batch.objects, "object")}` : ""}</p></li>`,
              )}</ul>`
    }`;
}
