// What a pointer draws on the image: a line (size of a nucleus), a rectangle (region), a brush, two parts.

const stroke = (context, draw) => {
  for (const [width, color] of [
    [4, "rgb(0 0 0 / 60%)"],
    [2, "#ffd24d"],
  ]) {
    context.lineWidth = width;
    context.strokeStyle = color;
    context.beginPath();
    draw(context);
    context.stroke();
  }
};

/** Base of tools that have a start and an end. `done` gets [x0, y0, x1, y1] in pixels of the image. */
function drag(viewer, done, shape) {
  let from = null;
  let to = null;
  return {
    down: (x, y) => (from = to = [x, y]),
    move: (x, y) => {
      to = [x, y];
      viewer.redraw();
    },
    up: (x, y) => {
      const start = from;
      from = null;
      viewer.redraw();
      if (start && Math.hypot(x - start[0], y - start[1]) > 1) done([...start, x, y]);
    },
    draw: (context) => {
      if (from) stroke(context, () => shape(context, viewer.toScreen(...from), viewer.toScreen(...to)));
    },
  };
}

/** A nucleus is this large: a circle across it. */
export const diameterTool = (viewer, done) =>
  drag(
    viewer,
    ([x0, y0, x1, y1]) => done(Math.hypot(x1 - x0, y1 - y0)),
    (context, [ax, ay], [bx, by]) => {
      context.arc((ax + bx) / 2, (ay + by) / 2, Math.hypot(bx - ax, by - ay) / 2, 0, 2 * Math.PI);
      context.moveTo(ax, ay);
      context.lineTo(bx, by);
    },
  );

/** Part of the image: a rectangle {x, y, width, height}, within the image. */
export const regionTool = (viewer, done) =>
  drag(
    viewer,
    ([x0, y0, x1, y1]) => {
      const limit = (value, most) => Math.round(Math.max(0, Math.min(most, value)));
      const [left, right] = [x0, x1].map((x) => limit(x, viewer.view.width)).sort((a, b) => a - b);
      const [top, bottom] = [y0, y1].map((y) => limit(y, viewer.view.height)).sort((a, b) => a - b);
      if (right - left > 1 && bottom - top > 1) done({ x: left, y: top, width: right - left, height: bottom - top });
    },
    (context, [ax, ay], [bx, by]) =>
      context.rect(Math.min(ax, bx), Math.min(ay, by), Math.abs(bx - ax), Math.abs(by - ay)),
  );

/** Two parts of an object: a line from one to the other. `done` gets the pixels [[y, x], [y, x]] of its ends. */
export const partsTool = (viewer, done) =>
  drag(
    viewer,
    ([x0, y0, x1, y1]) => {
      const within = (value, most) => Math.max(0, Math.min(most - 1, Math.floor(value)));
      const pixel = (x, y) => [within(y, viewer.view.height), within(x, viewer.view.width)];
      done([pixel(x0, y0), pixel(x1, y1)]);
    },
    (context, a, b) => {
      for (const [x, y] of [a, b]) {
        context.moveTo(x + 4, y);
        context.arc(x, y, 4, 0, 2 * Math.PI);
      }
      context.moveTo(...a);
      context.lineTo(...b);
    },
  );

/** A round brush. `paint` gets the runs [[y, x0, x1], …] of each piece of a stroke, x1 excluded; `done` comes at its end. */
export function brushTool(viewer, radius, paint, done) {
  let last = null;
  let at = null;
  const along = (x, y) => {
    const steps = last ? Math.max(1, Math.ceil(Math.hypot(x - last[0], y - last[1]) / Math.max(1, radius() / 2))) : 1;
    const [fromX, fromY] = last || [x, y];
    const rows = new Map();
    for (let step = 1; step <= steps; step++) {
      disc(rows, fromX + ((x - fromX) * step) / steps, fromY + ((y - fromY) * step) / steps, radius(), viewer.view);
    }
    last = [x, y];
    paint([...rows].map(([row, [x0, x1]]) => [row, x0, x1]));
  };
  return {
    down: along,
    move: (x, y) => {
      at = [x, y];
      along(x, y);
    },
    up: () => {
      last = null;
      done();
    },
    hover: (x, y) => {
      at = [x, y];
      viewer.redraw();
    },
    draw: (context) => {
      if (at)
        stroke(context, () =>
          context.arc(...viewer.toScreen(...at), Math.max(1, radius() * viewer.place.zoom), 0, 2 * Math.PI),
        );
    },
  };
}

function disc(rows, x, y, radius, { width, height }) {
  for (
    let row = Math.max(0, Math.ceil(y - radius - 0.5));
    row <= Math.min(height - 1, Math.floor(y + radius - 0.5));
    row++
  ) {
    const half = Math.sqrt(Math.max(0, radius * radius - (row + 0.5 - y) ** 2));
    const [x0, x1] = [
      Math.max(0, Math.round(x - half)),
      Math.min(width, Math.max(Math.round(x + half), Math.round(x - half) + 1)),
    ];
    const had = rows.get(row);
    if (x1 > x0) rows.set(row, had ? [Math.min(had[0], x0), Math.max(had[1], x1)] : [x0, x1]);
  }
}
