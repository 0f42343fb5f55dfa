// Queues for operators: why something stands still, workers and what they do, dead letters.
import { call, follow, get, post } from "./api.js";
import { ProblemBox, Scroll, useLoaded } from "./ui.js";
import { html, useEffect, useState } from "./vendor/preact.js";
import { ago, bytes, count, duration, plural, problemTitle, sentences, stageText } from "./words.js";

const SIGNS = { ok: ["good", "runs"], warn: ["warn", "needs a look"], bad: ["bad", "stands still"] };

/** A text whose commands are between backticks. */
const withCode = (text) => text.split("`").map((part, i) => (i % 2 ? html`<code>${part}</code>` : part));

function Queue({ queue }) {
  const [tone, sign] = SIGNS[queue.level] || SIGNS.ok;
  const isBad = tone !== "good";
  return html`
    <li class=${`box queue ${tone}`}>
      <div class="row between wrap"><h2>${queue.name}</h2><span class=${`tag ${tone}`}>${isBad ? "⚠ " : "● "}${sign}</span></div>
      <p><strong>${queue.sentence}</strong></p>
            ${isBad && queue.what_to_do && html`<p><span class="hint">What to do:</span> ${withCode(queue.what_to_do)}</p>`}
      <p class="numbers"><span><strong>${count(queue.waiting)}</strong> waiting</span><span><strong>${count(queue.running)}</strong> running</span>
        ${queue.oldest_s !== null && queue.oldest_s !== undefined && html`<span>oldest <strong>${duration(queue.oldest_s)}</strong></span>`}
        <span><strong>${queue.per_minute ?? 0}</strong> a minute</span><span><strong>${count(queue.workers)}</strong> ${queue.workers === 1 ? "worker" : "workers"}</span></p>
    </li>`;
}

const Workers = ({ workers }) => html`
  <section aria-labelledby="workers-title"><h2 id="workers-title">Workers</h2>
    ${
      !workers.length
        ? html`<p class="hint">No worker is registered.</p>`
        : html`<${Scroll} label="Table of workers"><table class="list">
      <thead><tr><th scope="col">Name</th><th scope="col">Queue</th><th scope="col">Does</th><th scope="col">Memory</th><th scope="col">Since</th></tr></thead>
      <tbody>${workers.map(
        (worker) => html`<tr><td>${worker.name}</td><td>${worker.queue}</td>
        <td>${worker.waits_for ? `waits for ${worker.waits_for}` : worker.slots?.some((slot) => slot.job) ? worker.slots.filter((slot) => slot.job).map((slot) => html`<div><a href=${`#/job/${encodeURIComponent(slot.job)}`}>${slot.job}</a>: ${stageText(slot.stage)}${slot.for_s ? `, for ${duration(slot.for_s)}` : ""}</div>`) : "idle"}</td>
        <td>${worker.memory_mb ? bytes(worker.memory_mb * 1e6) : "–"}</td><td>${ago(worker.since)}</td></tr>`,
      )}</tbody></table><//>`
    }
  </section>`;

function Dead({ dead, onAct }) {
  const [dropped, setDropped] = useState(null);
  return html`
    <section aria-labelledby="dead-title"><h2 id="dead-title">Dead letters</h2>
      ${
        !dead.length
          ? html`<p class="hint">There are none. A job that failed 5 times for a reason other than its input is listed here.</p>`
          : html`
        <p>${plural(dead.length, "job")} failed for a reason other than ${dead.length === 1 ? "its" : "their"} input.</p>
        <${Scroll} label="Table of dead letters"><table class="list"><thead><tr><th scope="col">Job</th><th scope="col">Reason</th><th scope="col">Since</th><th scope="col">Action</th></tr></thead>
        <tbody>${dead.map(
          (
            job,
          ) => html`<tr key=${job.id}><td><a href=${`#/job/${encodeURIComponent(job.id)}`}>${job.input?.name || job.id}</a></td>
          <td>${sentences(problemTitle(job.problem?.title, ""), job.problem?.detail) || "unknown"}</td><td>${ago(job.dead_since)}</td>
          <td><div class="row wrap"><button type="button" class="small" onClick=${() => onAct(() => post(`dead/${encodeURIComponent(job.id)}/again`, {}))}>Run again</button>
            ${
              dropped === job.id
                ? html`<button type="button" class="small danger" onClick=${() => onAct(() => call("DELETE", `dead/${encodeURIComponent(job.id)}`))}>Drop for ever</button><button type="button" class="small quiet" onClick=${() => setDropped(null)}>Keep</button>`
                : html`<button type="button" class="small" onClick=${() => setDropped(job.id)}>Drop</button>`
            }</div></td></tr>`,
        )}</tbody></table><//>`
      }
    </section>`;
}

const RANK = { bad: 0, warn: 1, ok: 2 };

export function Queues({ me }) {
  const [queues, setQueues] = useState(null);
  const [problem, setProblem] = useState(null);
  const [isAway, setAway] = useState(false);
  const [beat, setBeat] = useState(0);
  const [workers] = useLoaded(
    () => get("workers"),
    [beat],
    (each) => each.status !== 403 && each.status && setProblem(each),
  );
  const [dead] = useLoaded(
    () => get("dead"),
    [beat],
    (each) => each.status !== 403 && each.status && setProblem(each),
  );
  useEffect(() => {
    get("queues").then(setQueues, setProblem);
    const timer = setInterval(() => !document.hidden && setBeat((before) => before + 1), 5000);
    const end = follow("queues=1", {
      queues: (found) => setQueues(Array.isArray(found) ? found : found.queues),
      away: setAway,
    });
    return () => {
      clearInterval(timer);
      end();
    };
  }, []);
  const act = async (action) => {
    setProblem(null);
    try {
      await action();
    } catch (each) {
      setProblem(each);
    }
    setBeat(beat + 1);
  };
  const sorted = [...(queues || [])].sort(
    (a, b) => (RANK[a.level] ?? 2) - (RANK[b.level] ?? 2) || b.waiting - a.waiting,
  );
  return html`
    <div class="stack">
      <div class="title"><h1>Queues</h1></div>
      ${problem && html`<${ProblemBox} problem=${problem} />`}
      ${isAway && html`<p class="hint" role="status">The server cannot be reached. Trying again in a few seconds.</p>`}
      ${!queues ? !problem && html`<p class="hint">Loading…</p>` : !sorted.length ? html`<div class="card">No queue is served, and no job is waiting.</div>` : html`<ul class="stack plain">${sorted.map((queue) => html`<${Queue} key=${queue.name} queue=${queue} />`)}</ul>`}
      ${me?.role !== "user" && html`${workers && html`<${Workers} workers=${workers} />`}${dead && html`<${Dead} dead=${dead} onAct=${act} />`}`}
    </div>`;
}
