// One batch: how far it is, each image with its count or the reason why it failed, and its results together.
import { batchUrl, call, fileUrl, follow, get, post, uploadPath } from "./api.js";
import { BatchBar, countsText } from "./batches.js";
import { isOver, qualityOf } from "./states.js";
import { ProblemBox, Scroll, Status, useStored } from "./ui.js";
import { html, useEffect, useMemo, useState } from "./vendor/preact.js";
import { count, duration, number, plural, problemTitle, sentences, stageText } from "./words.js";

const jobHref = (job) => `#/job/${encodeURIComponent(job.id)}`;
const stateText = (job) =>
  ({
    done: plural(job.objects ?? 0, "object"),
    failed: "failed",
    cancelled: "cancelled",
    expired: "expired",
    cancelling: "cancelling",
    running: `${stageText(job.stage)}, ${Math.round(job.progress || 0)} %`,
  })[job.status] || "waiting";

/** All jobs of a batch, page by page. */
async function jobsOf(id) {
  const found = [];
  for (let cursor = ""; ;) {
    const { items, next } = await get(
      `jobs?batch=${encodeURIComponent(id)}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`,
    );
    found.push(...items);
    if (!next || found.length > 5000) return found;
    cursor = next;
  }
}

function Tile({ job }) {
  const [hasImage, setImage] = useState(true);
  const thumbnail = job.input?.upload && `/api/v1/${uploadPath(job.input.upload)}/thumbnail`;
  const source = job.status === "done" ? fileUrl(job.id, "overlay.png") : thumbnail;
  const below = thumbnail ? { background: `#101214 url("${thumbnail}") center / cover` } : {}; // until the outlines are there
  return html`
    <li><a class="tile" href=${jobHref(job)}>
      ${source && hasImage ? html`<img src=${source} style=${below} loading="lazy" alt="" onError=${() => setImage(false)} />` : html`<span class="no-image" aria-hidden="true">${stateText(job)}</span>`}
      <span class="text"><span class="name" title=${job.input?.name}>${job.input?.name}</span><span class=${job.status === "failed" ? "bad" : "hint"}>${job.status === "failed" ? `✕ ${problemTitle(job.problem?.title, "failed")}` : stateText(job)}</span></span>
    </a></li>`;
}

const List = ({ jobs }) => html`
  <${Scroll} label="Table of images"><table class="list"><thead><tr><th scope="col">Image</th><th scope="col">State</th><th scope="col">Objects</th><th scope="col">Quality</th><th scope="col">Reason</th></tr></thead>
    <tbody>${jobs.map(
      (
        job,
      ) => html`<tr key=${job.id}><td><a href=${jobHref(job)}>${job.input?.name}</a></td><td>${job.status === "done" ? "done" : stateText(job)}</td><td>${job.status === "done" ? count(job.objects ?? 0) : ""}</td>
      <td>${qualityOf(job) === null ? "" : number(qualityOf(job))}</td><td>${job.problem ? sentences(problemTitle(job.problem.title, ""), job.problem.detail, job.problem.hint) : job.warning || ""}</td></tr>`,
    )}</tbody></table><//>`;

export function Batch({ place }) {
  const id = place.id;
  const [batch, setBatch] = useState(null);
  const [jobs, setJobs] = useState(new Map());
  const [problem, setProblem] = useState(null);
  const [isAway, setAway] = useState(false);
  const [show, setShow] = useState("all");
  const [shape, setShape] = useStored("batch_shape", "grid");
  const [many, setMany] = useState(60);
  const keep = (found) => setJobs((before) => new Map([...before, ...found.map((job) => [job.id, job])]));
  const load = () =>
    get(`batches/${encodeURIComponent(id)}`)
      .then((found) => {
        setBatch(found);
        return jobsOf(id).then(keep);
      })
      .catch(setProblem);
  useEffect(() => {
    load();
    return follow(`batch=${encodeURIComponent(id)}`, { batch: setBatch, job: (job) => keep([job]), away: setAway });
  }, [id]);
  useEffect(() => {
    if (batch) document.title = `${batch.name} · Segment`;
  }, [batch?.name]);
  // Events have the counts of a batch; its list is read again until it agrees with them.
  const counts = batch?.counts;
  const ended = counts ? counts.done + counts.failed + counts.cancelled : 0;
  useEffect(() => {
    if (!counts || [...jobs.values()].filter(isOver).length === ended) return undefined;
    const timer = setTimeout(() => jobsOf(id).then(keep, () => {}), 1000);
    return () => clearTimeout(timer);
  }, [ended, jobs]);

  const all = useMemo(
    () =>
      [...jobs.values()].sort((a, b) =>
        String(a.input?.name).localeCompare(String(b.input?.name), "en", { numeric: true }),
      ),
    [jobs],
  );
  const act = (action) => async () => {
    setProblem(null);
    try {
      const found = await action();
      if (found?.counts) setBatch(found);
      await load();
    } catch (each) {
      setProblem(each);
    }
  };
  if (problem && !batch)
    return html`<${ProblemBox} problem=${problem}><a class="button" href="#/batches">All batches</a><//>`;
  if (!batch) return html`<p class="hint">Loading…</p>`;
  const { failed = 0, waiting = 0, running = 0, done = 0 } = batch.counts;
  const isOpen = waiting + running > 0;
  const shown = all.filter((job) => show === "all" || (show === "open" ? !isOver(job) : job.status === show));
  const text = countsText(batch.counts);
  return html`
    <div class="stack">
      <div class="title row between"><h1>${batch.name}</h1><div class="row wrap">
        ${isOpen && html`<button type="button" onClick=${act(() => call("DELETE", `batches/${encodeURIComponent(id)}`))}>Cancel the rest</button>`}
        ${done > 0 && html`<a class="button" href=${batchUrl(id, "summary.csv")} download>Table, CSV</a><a class="button primary" href=${batchUrl(id, "result.zip")} download>${isOpen ? "Zip so far" : "Zip of all"}</a>`}
      </div></div>
      <div class="card stack">
        <p><strong>${text}</strong>${batch.objects ? html` · <span data-testid="objects">${count(batch.objects)}</span> objects` : ""}${isOpen && batch.seconds_left ? ` · about ${duration(batch.seconds_left)} left` : ""}</p>
        <${BatchBar} counts=${batch.counts} />
        <${Status} text=${text} />
        ${isAway && html`<p class="hint">The server cannot be reached. Trying again in a few seconds.</p>`}
      </div>
      ${problem && html`<${ProblemBox} problem=${problem} />`}
      ${
        failed > 0 &&
        html`<${ProblemBox} tone="warn" problem=${{ title: `${plural(failed, "image")} failed`, detail: "The others are not affected. The reason of each one is in the list." }}>
        <button type="button" onClick=${act(() => post(`batches/${encodeURIComponent(id)}/again?failed=1`, {}))}>${failed === 1 ? "Run it again" : `Run the ${count(failed)} again`}</button>
        <button type="button" onClick=${() => {
          setShow("failed");
          setShape("list");
        }}>Show the reasons</button><//>`
      }
      <div class="row wrap between">
        <label class="slider">Show <select value=${show} onChange=${(event) => setShow(event.target.value)}><option value="all">all images</option><option value="done">done</option><option value="failed">failed</option><option value="open">not done yet</option></select></label>
        <div class="row" role="group" aria-label="Shape"><button type="button" aria-pressed=${shape === "grid"} onClick=${() => setShape("grid")}>Grid</button><button type="button" aria-pressed=${shape === "list"} onClick=${() => setShape("list")}>List</button></div>
      </div>
      ${!shown.length ? html`<p class="hint">There are none.</p>` : shape === "list" ? html`<${List} jobs=${shown.slice(0, many)} />` : html`<ul class="grid">${shown.slice(0, many).map((job) => html`<${Tile} key=${`${job.id}${job.status}`} job=${job} />`)}</ul>`}
      ${shown.length > many && html`<button type="button" onClick=${() => setMany(many + 200)}>Show more (${count(shown.length - many)})</button>`}
      <${BatchPlots} jobs=${all} />
    </div>`;
}

/** Objects of each image, once there are some; loaded with the plots. */
function BatchPlots({ jobs }) {
  const [Plot, setPlot] = useState(null);
  const done = jobs.filter((job) => job.status === "done" && Number.isFinite(job.objects));
  if (done.length < 3) return null;
  const open = async (event) => {
    if (!event.currentTarget.open || Plot) return;
    const plots = await import("./plots.js");
    setPlot(() => plots.Counts);
  };
  return html`<details class="card" onToggle=${open}><summary>Plot over the batch</summary>${Plot && html`<${Plot} jobs=${done} />`}</details>`;
}
