// Colours of labels and values, as packed little-endian RGBA (0xAABBGGRR), which is what a Uint32Array over ImageData holds.

/** Pack three values of 0..255. */
export const pack = (r, g, b) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** [r, g, b] of "#rrggbb". */
export function parseColor(text) {
  const value = parseInt(String(text || "#ffffff").slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

/** CSS text of a packed colour. */
export const cssColor = (packed) => `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`;

function hslToPacked(hue, saturation, lightness) {
  const channel = (n) => {
    const k = (n + hue * 12) % 12;
    const value = lightness - saturation * Math.min(lightness, 1 - lightness) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(value * 255);
  };
  return pack(channel(0), channel(8), channel(4));
}

const GOLDEN = 0.618033988749895;
const LABEL_COLORS = 2048;

/** Colours of labels: neighbours in number differ by the golden angle in hue, all have one lightness. Indexed by label % its length. */
export const labelColors = Uint32Array.from({ length: LABEL_COLORS }, (_, label) =>
  hslToPacked((label * GOLDEN) % 1, 0.8, 0.6),
);

// Every fourth of viridis and cividis (matplotlib, CC0), between which colours are interpolated.
const SCALES = {
  viridis:
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
  cividis:
    "00224e 002e6c 1a386f 36436c 4a4d6c 5a576e 696272 776d77 868178 948e77 a59c74 b6ab6f c8bb68 dacb5e eedd50 fde737 fee838",
};

/** A function from 0..1 to a packed colour. */
export function colorScale(name = "viridis") {
  const stops = SCALES[name].split(" ").map((text) => parseColor(`#${text}`));
  return (value) => {
    const place = Math.max(0, Math.min(1, value)) * (stops.length - 1);
    const index = Math.min(stops.length - 2, Math.floor(place));
    const part = place - index;
    const mix = stops[index].map((low, i) => Math.round(low + (stops[index + 1][i] - low) * part));
    return pack(...mix);
  };
}

/** A table label → packed colour from values of labels. Labels without a finite value get grey. */
export function colorsByValue(labels, values, { low, high, scale = "viridis" }) {
  const table = new Uint32Array(labels.reduce((most, label) => Math.max(most, label), 0) + 1).fill(pack(128, 128, 128));
  const color = colorScale(scale);
  const span = high - low || 1;
  labels.forEach((label, i) => {
    if (Number.isFinite(values[i])) table[label] = color((values[i] - low) / span);
  });
  return table;
}
