// Tracks of a movie: lineage tree, divisions, a plot along a track. All of it is linked to the image.
import { fileUrl, get } from "./api.js";
import { axisStyle, Plot } from "./plots.js";
import { Scroll, useLoaded } from "./ui.js";
import { html, useEffect, useMemo, useState } from "./vendor/preact.js";
import { cssColor, labelColors } from "./viewer/colors.js";
import { columnTitle, count, number } from "./words.js";

const ROW = 22;
const LEFT = 60;

const colorOf = (label) => cssColor(labelColors[label % labelColors.length]);

/** Tracks by label from rows of the table, with `lineage` (lineage.json) where it is there. */
export function tracksOf(table, lineage) {
  const tracks = new Map();
  for (const row of table.rows) {
    const label = table.value(row, table.key);
    if (!tracks.has(label))
      tracks.set(label, { label, color: colorOf(label), t: [], x: [], y: [], rows: [], parent: null, daughters: [] });
    const track = tracks.get(label);
    const { x, y, t } = table.placeOf(row);
    track.t.push(t);
    track.x.push(x - 0.5);
    track.y.push(y - 0.5);
    track.rows.push(row);
  }
  for (const track of tracks.values()) {
    const order = track.t.map((_, i) => i).sort((a, b) => track.t[a] - track.t[b]);
    for (const name of ["t", "x", "y", "rows"]) track[name] = order.map((i) => track[name][i]);
    const known = lineage?.[track.label];
    track.parent = known?.parent ?? null;
    track.daughters = known?.daughters || [];
  }
  return tracks;
}

/** Tracks in the order of the tree: each with its daughters around it, trees of divisions first. */
export function layout(tracks) {
  const places = new Map();
  let row = 0;
  const put = (track) => {
    const [first, ...others] = track.daughters.map((label) => tracks.get(label)).filter(Boolean);
    if (first) put(first);
    places.set(track.label, row++);
    others.forEach(put);
  };
  const roots = [...tracks.values()].filter((track) => !tracks.has(track.parent));
  roots.sort((a, b) => b.daughters.length - a.daughters.length || a.t[0] - b.t[0] || a.label - b.label).forEach(put);
  return places;
}

function Lineage({ tracks, frames, now, selected, onSelect }) {
  const places = useMemo(() => layout(tracks), [tracks]);
  const step = Math.max(3, Math.min(40, 900 / frames));
  const x = (t) => LEFT + t * step;
  const y = (label) => places.get(label) * ROW + ROW;
  const shown = [...tracks.values()].filter((track) => places.get(track.label) < 400);
  return html`
    <div class="lineage" tabindex="0" role="region" aria-label="Lineage tree">
      <svg width=${LEFT + frames * step + 20} height=${(Math.min(400, places.size) + 1) * ROW} role="img" aria-label=${`${count(tracks.size)} tracks over ${frames} frames`}>
        <line x1=${x(now)} x2=${x(now)} y1="0" y2="100%" stroke="var(--focus)" stroke-dasharray="4 3" />
        ${shown.map((track) => {
          const end = track.t[track.t.length - 1];
          return html`
            <g class="track" onClick=${(event) => onSelect(track, Math.round((event.offsetX - LEFT) / step))}>
              <rect x="0" y=${y(track.label) - ROW / 2} width=${x(end) + 8} height=${ROW} fill=${track.label === selected ? "var(--accent-back)" : "transparent"} />
              <text x="8" y=${y(track.label) + 4}>${track.label}</text>
              <line x1=${x(track.t[0])} x2=${x(end)} y1=${y(track.label)} y2=${y(track.label)} stroke=${track.color} stroke-width=${track.label === selected ? 5 : 3} />
              ${track.daughters
                .filter((label) => tracks.has(label))
                .map(
                  (label) => html`
                <path d=${`M${x(end)} ${y(track.label)} L${x(tracks.get(label).t[0])} ${y(label)}`} stroke="var(--soft)" fill="none" />`,
                )}
            </g>`;
        })}
      </svg>
    </div>
    ${places.size > 400 && html`<p class="hint">The first 400 of ${count(places.size)} tracks are drawn. All are in the table.</p>`}`;
}

function Divisions({ tracks, onSelect }) {
  const divided = [...tracks.values()].filter((track) => track.daughters.length);
  if (!divided.length) return html`<p class="hint">No division was found.</p>`;
  return html`
    <h2>${count(divided.length)} ${divided.length === 1 ? "division" : "divisions"}</h2>
    <${Scroll} label="Table of divisions"><table class="list"><thead><tr><th scope="col">Frame</th><th scope="col">Parent</th><th scope="col">Daughters</th></tr></thead>
      <tbody>${divided.slice(0, 200).map(
        (track) => html`<tr>
        <td>${track.t[track.t.length - 1] + 1}</td>
        <td><button type="button" class="link" onClick=${() => onSelect(track, track.t[track.t.length - 1])}>Track ${track.label}</button></td>
        <td>${track.daughters.join(", ")}</td></tr>`,
      )}</tbody></table><//>`;
}

function Along({ track, table, channels }) {
  const [name, setName] = useState(
    ["area_um2", "area_px"].find((each) => table.measures.includes(each)) || table.measures[0],
  );
  const title = columnTitle(name, channels);
  const make = () => ({
    data: [track.t.map((t) => t + 1), track.rows.map((row) => table.value(row, name))],
    options: {
      scales: { x: { time: false } },
      axes: [axisStyle("Frame"), axisStyle(title)],
      series: [{}, { stroke: track.color, width: 2, points: { size: 4 } }],
    },
  });
  return html`
    <h2>Track ${track.label}: frames ${track.t[0] + 1} to ${track.t[track.t.length - 1] + 1}</h2>
    <label class="slider">Plot <select value=${name} onChange=${(event) => setName(event.target.value)}>${table.measures.map((each) => html`<option value=${each}>${columnTitle(each, channels)}</option>`)}</select></label>
    <${Plot} make=${make} inputs=${[track, name]} height=${220} label=${`${title} along track ${track.label}, from ${number(table.value(track.rows[0], name))}`} />`;
}

export function Movie({ job, table, view, place, selected, onSelect, onTracks, channels, mask, onMask }) {
  const [lineage] = useLoaded(() => get(fileUrl(job.id, "lineage.json")).catch(() => ({})), [job.id, job.version]);
  const tracks = useMemo(() => tracksOf(table, lineage?.tracks || lineage), [table, lineage]);
  useEffect(() => onTracks([...tracks.values()]), [tracks]);
  const select = (track, t) => {
    const frame = track.t.reduce((best, each) => (Math.abs(each - t) < Math.abs(best - t) ? each : best), track.t[0]);
    const i = track.t.indexOf(frame);
    onSelect({ label: track.label, x: track.x[i] + 0.5, y: track.y[i] + 0.5, t: frame, z: 0 }, true);
  };
  const track = selected && tracks.get(selected.label);
  return html`
    <div class="row wrap between">
      <p>${count(tracks.size)} tracks. <span class="hint">Select one in the tree to see it in the image.</span></p>
      <label class="slider">Tails, frames <input type="range" min="0" max="50" value=${mask.tails} onInput=${(event) => onMask({ tails: Number(event.target.value) })} /> ${mask.tails}</label>
    </div>
    <${Lineage} tracks=${tracks} frames=${view.t} now=${place.t} selected=${selected?.label} onSelect=${select} />
    ${track && html`<${Along} key=${track.label} track=${track} table=${table} channels=${channels} />`}
    <${Divisions} tracks=${tracks} onSelect=${select} />`;
}
