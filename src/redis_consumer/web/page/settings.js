// The panel beside the image: what to find, channels by role, size, region. Shows what was read and lets it be corrected.
import { OptionsForm } from "./form.js";
import { Field } from "./ui.js";
import { html, useState } from "./vendor/preact.js";
import { number } from "./words.js";

/** Options that have a place of their own in the panel. */
const OWN = ["channels", "scale", "object_diameter_px", "model_name", "model_version", "dimension_order", "outputs"];

export const NO_CHOICES = { kind: "", model: "", options: {}, outputs: undefined, region: null };

/** The suggested choices for an image. Where no worker serves the suggested kind, that of images is taken. */
export function choicesOf(facts, kinds) {
  const { kind = "", model = "", options = {} } = facts?.suggestions || {};
  const isServed = (name) => kinds.some((each) => each.name === name && each.served);
  const instead = !isServed(kind) && ["image", "segmentation"].find(isServed);
  return { ...NO_CHOICES, kind: instead || kind, model, options: { ...options } };
}

export const kindOf = (kinds, name) => kinds?.find((kind) => kind.name === name);
const modelOf = (models, name) =>
  models?.find((model) => `${model.name}:${model.version}` === name || model.name === name);

function WhatToFind({ kinds, models, choices, onChange, why }) {
  const served = (kinds || []).filter((kind) => kind.served || kind.name === choices.kind);
  const takesModel = "scale" in (kindOf(kinds, choices.kind)?.options_schema?.properties || {});
  return html`
    <fieldset><legend>1 What to find</legend>
      ${
        served.length > 1 &&
        html`<${Field} id="kind" label="Kind of job">
        <select id="kind" value=${choices.kind} onChange=${(event) => onChange({ kind: event.target.value, options: {} })}>
          ${served.map((kind) => html`<option value=${kind.name}>${kind.title}</option>`)}
        </select><//>`
      }
      ${
        takesModel &&
        html`<${Field} id="model" label="Model" hint=${why}>
        <select id="model" value=${choices.model || ""} onChange=${(event) => onChange({ model: event.target.value })}>
          <option value="">Chosen by the server</option>
          ${(models || []).map((model) => html`<option value=${`${model.name}:${model.version}`}>${model.title || model.name}</option>`)}
        </select><//>`
      }
    </fieldset>`;
}

function Channels({ roles, channels, choices, onChange }) {
  const parts = String(choices.options.channels || "").split(",");
  const set = (index, value) => {
    const next = roles.map((_, i) => (i === index ? value : parts[i] || ""));
    onChange({ options: { ...choices.options, channels: next.some(Boolean) ? next.join(",") : "" } });
  };
  return html`
    <fieldset><legend>2 Channels</legend>
      ${
        channels.length < 2
          ? html`<p class="hint">The image has one channel${channels[0]?.name && !/^Channel \d+$/.test(channels[0].name) ? `: ${channels[0].name}` : ""}.</p>`
          : roles.map(
              (role, i) => html`
        <${Field} key=${role.name} id=${`role-${i}`} label=${role.title}>
          <select id=${`role-${i}`} value=${parts[i] || ""} onChange=${(event) => set(i, event.target.value)}>
            <option value="">${role.required === false ? "None" : "Found automatically"}</option>
            ${channels.map((channel) => html`<option value=${String(channel.index)}>${channel.name || `Channel ${channel.index + 1}`}</option>`)}
          </select><//>`,
            )
      }
    </fieldset>`;
}

function Size({ facts, model, choices, onChange, onDraw, isDrawing }) {
  const known = facts?.pixel_size_um?.[1];
  const [pixel, setPixel] = useState("");
  const options = choices.options;
  const change = (value) => {
    setPixel(value);
    const size = Number(value);
    const scale = size > 0 && model?.pixel_size_um ? size / model.pixel_size_um : "";
    onChange({ options: { ...options, scale: scale && Number(scale.toPrecision(4)), object_diameter_px: "" } });
  };
  const diameter = (value) =>
    onChange({ options: { ...options, object_diameter_px: value && Number(Number(value).toPrecision(3)), scale: "" } });
  return html`
    <fieldset><legend>3 Size</legend>
      ${
        model?.pixel_size_um &&
        html`<${Field} id="pixel" label="Pixel size (µm)" hint=${known ? "Read from the file." : "The file does not say it."}>
        <input id="pixel" type="number" min="0" step="any" placeholder=${known ? number(known) : "unknown"} value=${pixel} aria-describedby="pixel-hint" onChange=${(event) => change(event.target.value)} />
      <//>`
      }
      <${Field} id="diameter" label="A nucleus is this large (px)">
        <span class="row">
          <input id="diameter" type="number" min="1" step="any" placeholder="automatic" value=${options.object_diameter_px || ""} onChange=${(event) => diameter(event.target.value)} />
          ${onDraw && html`<button type="button" aria-pressed=${isDrawing} onClick=${onDraw} id="draw-nucleus">Draw one</button>`}
        </span>
      <//>
      ${isDrawing && html`<p class="hint" role="status">Drag across one nucleus in the image.</p>`}
    </fieldset>`;
}

function Region({ region, view, onChange, onDraw, isDrawing }) {
  const set = (name, value) =>
    onChange({
      region: {
        x: 0,
        y: 0,
        width: view?.width || 0,
        height: view?.height || 0,
        ...region,
        [name]: Math.max(0, Math.round(Number(value))),
      },
    });
  const fields = [
    ["x", "Left"],
    ["y", "Top"],
    ["width", "Width"],
    ["height", "Height"],
  ];
  return html`
    <div class="region">
      <div class="row">
        <button type="button" aria-pressed=${isDrawing} onClick=${onDraw}>Draw a region</button>
        ${region && html`<button type="button" class="quiet" onClick=${() => onChange({ region: null })}>Whole image</button>`}
      </div>
      ${isDrawing && html`<p class="hint" role="status">Drag a rectangle in the image.</p>`}
      <div class="four">${fields.map(
        ([name, title]) => html`
        <div><label for=${`region-${name}`}>${title}</label>
          <input id=${`region-${name}`} type="number" min="0" placeholder="–" value=${region?.[name] ?? ""} onChange=${(event) => set(name, event.target.value)} /></div>`,
      )}
      </div>
    </div>`;
}

/** What the finished job did: axes, channels, scale. */
function WasRead({ read }) {
  if (!read) return null;
  const rows = [
    ["Axes", read.axes_read],
    ["Channels", read.channels_read],
    [
      "Scale",
      read.scale &&
        `${number(Number(read.scale))}${SCALE_FROM[read.scale_from] ? ` (${SCALE_FROM[read.scale_from]})` : ""}`,
    ],
    ["Size of an object", read.object_diameter_px && `${number(Number(read.object_diameter_px))} px`],
  ].filter(([, value]) => value);
  if (!rows.length) return null;
  return html`<div class="was-read"><h3>How the image was read</h3><dl>${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></div>`;
}

const SCALE_FROM = {
  job: "as set in the settings",
  object_diameter_px: "from the size of a nucleus",
  pixel_size: "from the pixel size",
  detection: "detected",
  estimate: "estimated from the image",
  default: "not known: 1",
};

/** Roles of channels: those of the model's card, else those of the kind. */
function rolesOf(kind, model) {
  const ofModel = model?.roles?.map((name) => ({ name, title: name }));
  const roles = ofModel?.length ? ofModel : kind?.roles;
  const objects = [{ name: "image", title: "Channel with the objects" }];
  return !roles?.length || roles[0].name === "image" ? objects : roles;
}

export function Settings({ work, kinds, models, choices, onChange, view, tool, onTool, onRun, isBatch, runText }) {
  const facts = work.upload?.facts;
  const suggestion = facts?.suggestions;
  const kind = kindOf(kinds, choices.kind);
  const model = modelOf(models, choices.model || suggestion?.model || work.job?.model);
  const roles = rolesOf(kind, model);
  const isBusy = work.isStarting || (work.job && !["done", "failed", "cancelled", "expired"].includes(work.job.status));
  return html`
    <aside class="panel" aria-label="Settings">
      <h2>Settings</h2>
      <${WhatToFind} kinds=${kinds} models=${models} choices=${choices} onChange=${onChange} why=${suggestion && suggestion.model === choices.model ? suggestion.why : ""} />
      <${Channels} roles=${roles} channels=${facts?.channels || []} choices=${choices} onChange=${onChange} />
      <${Size} facts=${facts} model=${model} choices=${choices} onChange=${onChange} isDrawing=${tool === "nucleus"} onDraw=${isBatch ? null : () => onTool("nucleus")} />
      ${
        !isBatch &&
        html`<details><summary>Region</summary>
        <${Region} region=${choices.region} view=${view} onChange=${onChange} isDrawing=${tool === "region"} onDraw=${() => onTool("region")} /></details>`
      }
      <details id="more-settings"><summary>More settings</summary>
        <${Field} id="axes" label="Axes of the file" hint=${facts ? `Read as ${facts.axes_read || facts.axes}, shape ${facts.shape?.join(" × ")}.` : ""}>
          <input id="axes" placeholder=${facts?.axes_read || "automatic"} aria-describedby="axes-hint" value=${choices.options.dimension_order || ""}
            onChange=${(event) => onChange({ options: { ...choices.options, dimension_order: event.target.value.trim().toUpperCase() } })} /><//>
        <${OptionsForm} schema=${kind?.options_schema} without=${OWN} values=${choices.options} onChange=${(options) => onChange({ options })} />
      </details>
      <div class="actions stick"><button type="button" class="primary" disabled=${isBusy || !(work.upload?.state === "ready" || work.job)} onClick=${onRun}>
        ${runText || (choices.region ? "Run on the region" : work.job ? "Run again" : "Run")}</button></div>
      <${WasRead} read=${work.job?.status === "done" && work.job.read} />
    </aside>`;
}
