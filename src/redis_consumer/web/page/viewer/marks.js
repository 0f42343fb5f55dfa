// Draws what lies over the picture: the scale bar, points, tails of tracks.

/** The largest of 1, 2, 5 · 10ⁿ that is at most `value`. */
export function roundNumber(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [5, 2, 1].find((digit) => digit * power <= value * 1.000001) * power;
}

/** Length and text of a scale bar: {pixels (CSS), text}. Without a pixel size it is in pixels of the image. */
export function scaleBar(zoom, pixelSize, most = 140) {
  const unit = pixelSize ? pixelSize[1] : 1;
  const length = roundNumber((most / zoom) * unit);
  const pixels = (length / unit) * zoom;
  if (!pixelSize) return { pixels, text: `${length} px` };
  if (length >= 1000) return { pixels, text: `${length / 1000} mm` };
  return { pixels, text: length >= 1 ? `${length} µm` : `${Math.round(length * 1000)} nm` };
}

export function drawScaleBar(context, viewer) {
  const { width, height } = viewer.size;
  const { pixels, text } = scaleBar(viewer.place.zoom, viewer.view.pixel_size_um, Math.min(140, width / 3));
  const [right, bottom] = [width - 14, height - 14];
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "center";
  const box = Math.max(pixels, context.measureText(text).width) + 16;
  context.fillStyle = "rgb(0 0 0 / 65%)";
  context.fillRect(right - box + 8, bottom - 24, box, 32);
  context.fillStyle = "#fff";
  context.fillRect(right - box / 2 + 8 - pixels / 2, bottom - 1, pixels, 3);
  context.fillText(text, right - box / 2 + 8, bottom - 8);
}

/** Points {y, x, cell} as circles; those of a cell have its colour, others are white. Far away, dots. */
export function drawPoints(context, viewer, points) {
  const { width, height } = viewer.size;
  const radius = Math.max(1, Math.min(7, viewer.place.zoom * 2.5));
  for (let i = 0; i < points.x.length; i++) {
    const [sx, sy] = viewer.toScreen(points.x[i] + 0.5, points.y[i] + 0.5);
    if (sx < -9 || sy < -9 || sx > width + 9 || sy > height + 9) continue;
    context.strokeStyle = points.colorOf ? points.colorOf(i) : "#fff";
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(sx, sy, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** Tails: for each track with an object in this frame, a line through its last places. `tracks`: [{color, t: [], x: [], y: []}]. */
export function drawTails(context, viewer, tracks, length) {
  const now = viewer.place.t;
  context.lineWidth = 2;
  context.lineJoin = "round";
  for (const track of tracks) {
    const last = track.t.indexOf(now);
    if (last < 1) continue;
    context.strokeStyle = track.color;
    context.beginPath();
    for (let i = last; i >= 0 && track.t[i] >= now - length; i--)
      context.lineTo(...viewer.toScreen(track.x[i] + 0.5, track.y[i] + 0.5));
    context.stroke();
  }
}
