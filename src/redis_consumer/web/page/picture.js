// The image with its controls: channels and contrast, mask, planes and frames, value under the cursor.
import { cssColor, labelColors, parseColor } from "./viewer/colors.js";
import { Viewer } from "./viewer/viewer.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { number } from "./words.js";

const DEFAULT_COLORS = ["#ffffff", "#00ff7f", "#ff3df2", "#ffb000"];
const toColor = (color) => (/^#[0-9a-f]{6}$/i.test(color || "") ? color.toLowerCase() : null);

/** Channels as they are first shown: at most four, with the windows of the file. One channel alone is grey. */
export function firstChannels(facts, count) {
  const known = facts?.channels?.length ? facts.channels : Array.from({ length: count }, (_, index) => ({ index }));
  return known.map((channel, i) => ({
    index: channel.index ?? i,
    name:
      (known.length > 1 || !/^Channel \d+$/.test(channel.name) ? channel.name : "") ||
      (known.length > 1 ? `Channel ${i + 1}` : "Intensity"),
    isVisible: i < 4,
    color: known.length === 1 ? "#ffffff" : toColor(channel.color) || DEFAULT_COLORS[i % 4],
    low: channel.low ?? null,
    high: channel.high ?? null,
    min: channel.min,
    max: channel.max,
    histogram: channel.histogram,
    auto: [channel.low, channel.high],
  }));
}

export const shownChannels = (channels) =>
  channels
    .filter((channel) => channel.isVisible && channel.low !== null)
    .slice(0, 4)
    .map(({ index, color, low, high }) => ({ index, low, high, color: parseColor(color) }));

/** Settings of the mask as the layers that the viewer takes. */
export function labelLayers(mask, view) {
  const names = view?.layers.map((layer) => layer.name) || [];
  const style = {
    fill: mask.fill,
    outline: mask.outline,
    opacity: mask.opacity,
    selected: mask.selected,
    only: mask.only,
  };
  const layers = [];
  if (names.includes("labels") && mask.isVisible) layers.push({ ...style, layer: "labels", colors: mask.colors });
  if (names.includes("labels_2") && mask.hasSecond)
    layers.push({ ...style, layer: "labels_2", fill: false, outline: true, colors: null, selected: 0, only: null });
  return layers;
}

function Histogram({ channel, onChange }) {
  const { histogram, low, high } = channel;
  const min = channel.min ?? Math.min(0, low);
  const max = channel.max ?? high * 1.5;
  const span = max - min || 1;
  const sums = Array.from({ length: histogram ? 64 : 0 }, (_, i) =>
    Math.log1p(Math.max(...histogram.slice(4 * i, 4 * i + 4))),
  );
  const most = Math.max(1, ...sums);
  const points = sums.map((value, i) => `${(i / 63) * 100},${30 - (value / most) * 28}`).join(" ");
  const percent = (value) => Math.max(0, Math.min(100, ((value - min) / span) * 100));
  const step = channel.max > 20 ? 1 : span / 512;
  return html`
    <div class="histogram">
      <svg viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">
        <rect x=${percent(low)} width=${Math.max(0.5, percent(high) - percent(low))} height="30" class="window" />
        ${points && html`<polygon points=${`0,30 ${points} 100,30`} />`}
      </svg>
      <input type="range" aria-label="Black" min=${min} max=${max} step=${step} value=${low} onInput=${(event) => onChange({ low: Math.min(Number(event.target.value), high - step) })} />
      <input type="range" aria-label="White" min=${min} max=${max} step=${step} value=${high} onInput=${(event) => onChange({ high: Math.max(Number(event.target.value), low + step) })} />
      <span class="numbers">${number(low)} – ${number(high)}</span>
    </div>`;
}

function Channels({ channels, onChange, onAuto }) {
  const [active, setActive] = useState(0);
  const change = (index, changes) =>
    onChange(channels.map((channel, i) => (i === index ? { ...channel, ...changes } : channel)));
  const current = channels[Math.min(active, channels.length - 1)];
  if (!current) return null;
  return html`
    <fieldset class="channels"><legend>Image</legend>
      ${
        channels.length > 1 &&
        html`<ul>${channels.map(
          (channel, i) => html`
        <li class=${i === active ? "active" : ""}>
          <input type="checkbox" aria-label=${`Show ${channel.name}`} checked=${channel.isVisible} onChange=${(event) => change(i, { isVisible: event.target.checked })} />
          <input type="color" aria-label=${`Colour of ${channel.name}`} value=${channel.color} onInput=${(event) => change(i, { color: event.target.value })} />
          <button type="button" class="quiet" aria-pressed=${i === active} onClick=${() => setActive(i)}>${channel.name}</button>
        </li>`,
        )}</ul>`
      }
      ${current.low !== null && html`<${Histogram} channel=${current} onChange=${(changes) => change(channels.indexOf(current), changes)} />`}
      <button type="button" onClick=${onAuto}>Auto contrast</button>
    </fieldset>`;
}

function Mask({ mask, onChange, colorings, hasSecond, hasPoints }) {
  return html`
    <fieldset class="mask"><legend>Mask</legend>
      <label class="check"><input type="checkbox" checked=${mask.isVisible} onChange=${(event) => onChange({ isVisible: event.target.checked })} /> Show</label>
      <label class="check"><input type="checkbox" checked=${mask.fill} onChange=${(event) => onChange({ fill: event.target.checked })} /> Fill</label>
      <label class="check"><input type="checkbox" checked=${mask.outline} onChange=${(event) => onChange({ outline: event.target.checked })} /> Outline</label>
      ${hasSecond && html`<label class="check"><input type="checkbox" checked=${mask.hasSecond} onChange=${(event) => onChange({ hasSecond: event.target.checked })} /> Second layer</label>`}
      ${hasPoints && html`<label class="check"><input type="checkbox" checked=${mask.hasPoints} onChange=${(event) => onChange({ hasPoints: event.target.checked })} /> Points</label>`}
      <label class="slider">Opacity <input type="range" min="0" max="1" step="0.05" value=${mask.opacity} onInput=${(event) => onChange({ opacity: Number(event.target.value) })} /></label>
      ${
        colorings.length > 0 &&
        html`<label class="slider">Colour by <select value=${mask.colorBy} onChange=${(event) => onChange({ colorBy: event.target.value })}>
        <option value="">object</option>${colorings.map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>`
      }
      ${mask.legend && html`<span class="legend" aria-label=${`Colours from ${number(mask.legend.low)} to ${number(mask.legend.high)}`}>${number(mask.legend.low)}<span class="ramp" aria-hidden="true"></span>${number(mask.legend.high)}</span>`}
    </fieldset>`;
}

function Slider({ name, label, value, most, onChange, children }) {
  return html`
    <div class="axis">
      <label for=${`axis-${name}`}>${label}</label>
      ${children}
      <input id=${`axis-${name}`} type="range" min="0" max=${most - 1} step="1" value=${value} onInput=${(event) => onChange(Number(event.target.value))} />
      <output for=${`axis-${name}`}>${value + 1} / ${most}</output>
    </div>`;
}

function Axes({ viewer, view, place }) {
  const [isPlaying, setPlaying] = useState(false);
  useEffect(() => {
    if (!isPlaying) return undefined;
    viewer.playing = true;
    // The next frame comes when this one is drawn sharply, at most 8 a second.
    let earliest = 0;
    const next = () => {
      const wait = Math.max(0, earliest - performance.now());
      earliest = performance.now() + wait + 125;
      setTimeout(() => viewer.playing && viewer.goTo({ t: (viewer.place.t + 1) % view.t }), wait);
    };
    viewer.addEventListener("idle", next);
    next();
    return () => {
      viewer.playing = false;
      viewer.removeEventListener("idle", next);
    };
  }, [isPlaying]);
  if (!view || (view.t < 2 && view.z < 2)) return null;
  return html`
    <div class="axes">
      ${view.z > 1 && html`<${Slider} name="z" label="Plane z" value=${place.z} most=${view.z} onChange=${(z) => viewer.goTo({ z })} />`}
      ${
        view.t > 1 &&
        html`<${Slider} name="t" label="Frame t" value=${place.t} most=${view.t} onChange=${(t) => viewer.goTo({ t })}>
        <button type="button" class="play" aria-label=${isPlaying ? "Pause" : "Play"} onClick=${() => setPlaying(!isPlaying)}><span aria-hidden="true">${isPlaying ? "❚❚" : "▶"}</span></button><//>`
      }
    </div>`;
}

const Under = ({ under, channels, pixelSize }) => {
  if (!under) return html`<p class="under" aria-hidden="true">Move over the image to see values.</p>`;
  const values = channels
    .map((channel, i) => under.values[i] !== undefined && `${channel.name} ${number(under.values[i])}`)
    .filter(Boolean);
  const place = pixelSize ? ` · ${number(under.x * pixelSize[1])}, ${number(under.y * pixelSize[0])} µm` : "";
  return html`<p class="under" aria-hidden="true">${`x ${under.x}, y ${under.y}${place} · ${values.join(" · ")}`}
    ${under.label ? html` · <span class="swatch" style=${{ background: cssColor(labelColors[under.label % labelColors.length]) }}></span> object ${under.label}` : ""}
    ${under.second ? ` · second layer ${under.second}` : ""}</p>`;
};

/** Canvas and controls. `onViewer` gets the Viewer once; `description` is the picture's text twin. */
export function Picture({
  viewer,
  onViewer,
  view,
  channels,
  onChannels,
  onAuto,
  mask,
  onMask,
  colorings,
  place,
  description,
  placeholder,
  isHidden,
  children,
}) {
  const canvas = useRef(null);
  const [under, setUnder] = useState(null);
  useEffect(() => {
    const made = new Viewer(canvas.current);
    made.addEventListener("hover", ({ detail }) => setUnder(detail));
    onViewer(made);
    return () => made.destroy();
  }, []);
  const names = view?.layers.map((layer) => layer.name) || [];
  return html`
    <section class="picture" aria-label="Image" hidden=${isHidden}>
      <div class="stage">
        <canvas ref=${canvas} tabindex="0" role="application" aria-roledescription="image viewer" aria-label="Image" aria-describedby="picture-text"></canvas>
        ${placeholder && html`<div class="placeholder">${placeholder}</div>`}
        ${
          view &&
          html`<div class="zoom" role="group" aria-label="Zoom">
          <button type="button" aria-label="Zoom in" title="Zoom in (+)" onClick=${() => viewer.zoomBy(1.5)}>+</button>
          <button type="button" aria-label="Zoom out" title="Zoom out (−)" onClick=${() => viewer.zoomBy(1 / 1.5)}>−</button>
          <button type="button" aria-label="Fit the image" title="Fit (0)" onClick=${() => viewer.fit()}>⤢</button>
        </div>`
        }
      </div>
      <p id="picture-text" class="visually-hidden">${description}</p>
      ${
        view &&
        html`
        <${Under} under=${under} channels=${channels} pixelSize=${view.pixel_size_um} />
        <${Axes} viewer=${viewer} view=${view} place=${place} />
        <div class="controls">
          <${Channels} channels=${channels} onChange=${onChannels} onAuto=${onAuto} />
          ${names.includes("labels") && html`<${Mask} mask=${mask} onChange=${onMask} colorings=${colorings} hasSecond=${names.includes("labels_2")} hasPoints=${names.includes("points")} />`}
          ${children}
        </div>`
      }
    </section>`;
}
