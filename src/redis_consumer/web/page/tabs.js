// Below a finished image: objects, plots, tracks of a movie, edits, the record.
import { filesOfJob } from "./files.js";
import { Objects } from "./objects.js";
import { qualityOf } from "./states.js";
import { useLoaded } from "./ui.js";
import { html, useState } from "./vendor/preact.js";
import { number } from "./words.js";

/** A part that is loaded when its tab is opened. */
function Lazy({ load, ...props }) {
  const [Part] = useLoaded(async () => ({ part: await load() }), [load]);
  return Part ? html`<${Part.part} ...${props} />` : html`<p class="hint">Loading…</p>`;
}

const loadPlots = async () => (await import("./plots.js")).Plots;
const loadEdit = async () => (await import("./edit.js")).Edit;
const loadMovie = async () => (await import("./movie.js")).Movie;

const time = (text) => (text ? new Date(text).toLocaleString() : "–");

function Record({ job }) {
  const rows = [
    ["Kind", job.kind],
    ["Model", job.model],
    ["Attempt", job.attempt],
    ["Created", time(job.times?.created)],
    ["Started", time(job.times?.started)],
    ["Finished", time(job.times?.finished)],
    ["Quality", qualityOf(job)],
    ["Axes", job.read?.axes_read],
    ["Channels", job.read?.channels_read],
    ["Scale", job.read?.scale && `${job.read.scale} (${job.read.scale_from || "?"})`],
    ["Version of the labels", job.version],
    ["Run again of", job.again_of],
    ["Job", job.id],
    ["Result until", job.result?.expires && time(job.result.expires)],
    ...Object.entries(job.options || {}).map(([name, value]) => [`Option ${name}`, String(value)]),
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`
    <dl class="record">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${typeof value === "number" ? number(value) : value}</dd></div>`)}</dl>
    <h2>Files</h2>
    <ul class="files">${filesOfJob(job).map((file) => html`<li><a href=${file.url} download>${file.title}</a> <span class="hint">${file.hint}</span></li>`)}</ul>`;
}

export function Tabs(props) {
  const { job, table, view, problem } = props;
  const isMovie =
    view?.t > 1 &&
    table &&
    (table.key === "track" || "track" in table.index || ["tracking", "caliban"].includes(job.kind));
  const tabs = [
    ["objects", "Objects"],
    ["plots", "Plots"],
    ...(isMovie ? [["tracks", "Tracks"]] : []),
    ["edit", "Edit"],
    ["record", "Record"],
  ];
  const [open, setOpen] = useState("objects");
  const onKeyDown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const index = (tabs.findIndex(([name]) => name === open) + by + tabs.length) % tabs.length;
    setOpen(tabs[index][0]);
    event.currentTarget.children[index].focus();
  };
  const ready = {
    plots: html`<${Lazy} load=${loadPlots} ...${props} />`,
    tracks: html`<${Lazy} load=${loadMovie} ...${props} />`,
  };
  return html`
    <section class="tabs" aria-label="Result">
      <div role="tablist" aria-label="Result" onKeyDown=${onKeyDown}>${tabs.map(
        ([name, title]) => html`
        <button type="button" role="tab" id=${`tab-${name}`} aria-selected=${open === name} aria-controls="tab-panel" tabindex=${open === name ? 0 : -1} onClick=${() => setOpen(name)}>${title}</button>`,
      )}
      </div>
      <div role="tabpanel" id="tab-panel" aria-labelledby=${`tab-${open}`}>
        ${
          open === "objects"
            ? html`<${Objects} ...${props} />`
            : open === "record"
              ? html`<${Record} job=${job} />`
              : open === "edit"
                ? html`<${Lazy} load=${loadEdit} ...${props} />`
                : table
                  ? ready[open]
                  : html`<p class="hint">${problem ? problem.message : "Loading the table…"}</p>`
        }
      </div>
    </section>`;
}
