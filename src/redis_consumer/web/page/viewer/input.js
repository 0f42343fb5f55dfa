// Pointer, wheel and keys of the viewer. A tool (see tools.js) gets the pointer while it is set.

const STEP = 60;

/** Listen on the viewer's canvas; returns a function that ends it. */
export function attachInput(viewer) {
  const { canvas } = viewer;
  const pointers = new Map();
  let moved = 0;
  let pinch = 0;

  const position = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  const distance = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };

  const listeners = {
    pointerdown: (event) => {
      if (event.button > 1) return;
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, position(event));
      moved = 0;
      if (pointers.size === 2) pinch = distance();
      else if (viewer.tool && event.button === 0) viewer.tool.down(...viewer.toImage(...position(event)), event);
    },
    pointermove: (event) => {
      const here = position(event);
      const before = pointers.get(event.pointerId);
      if (!before) return hover(viewer, ...here);
      pointers.set(event.pointerId, here);
      const [dx, dy] = [here[0] - before[0], here[1] - before[1]];
      moved += Math.abs(dx) + Math.abs(dy);
      if (pointers.size === 2) {
        const now = distance();
        const [a, b] = [...pointers.values()];
        if (pinch) viewer.zoomBy(now / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        pinch = now;
      } else if (viewer.tool && !(event.buttons & 4)) viewer.tool.move(...viewer.toImage(...here), event);
      else viewer.goTo({ x: viewer.place.x - dx / viewer.place.zoom, y: viewer.place.y - dy / viewer.place.zoom });
      return undefined;
    },
    pointerup: (event) => {
      const was = pointers.size;
      pointers.delete(event.pointerId);
      if (viewer.tool && was === 1 && event.button === 0) viewer.tool.up(...viewer.toImage(...position(event)), event);
      else if (was === 1 && moved < 5 && event.button === 0) click(viewer, event, ...position(event));
    },
    pointercancel: (event) => pointers.delete(event.pointerId),
    pointerleave: () => viewer.emit("hover", null),
    wheel: (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      viewer.zoomBy(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), ...position(event));
    },
    dblclick: (event) => !viewer.tool && viewer.zoomBy(2, ...position(event)),
    keydown: (event) => {
      const action = !event.ctrlKey && !event.metaKey && !event.altKey && KEYS[event.key];
      if (!action) return;
      event.preventDefault();
      action(viewer);
    },
  };
  for (const [name, listener] of Object.entries(listeners)) canvas.addEventListener(name, listener, { passive: false });
  return () => Object.entries(listeners).forEach(([name, listener]) => canvas.removeEventListener(name, listener));
}

const pan = (dx, dy) => (viewer) =>
  viewer.goTo({ x: viewer.place.x + dx / viewer.place.zoom, y: viewer.place.y + dy / viewer.place.zoom });

const KEYS = {
  "+": (viewer) => viewer.zoomBy(1.5),
  "=": (viewer) => viewer.zoomBy(1.5),
  "-": (viewer) => viewer.zoomBy(1 / 1.5),
  0: (viewer) => viewer.fit(),
  1: (viewer) => viewer.goTo({ zoom: 1 }),
  ArrowLeft: pan(-STEP, 0),
  ArrowRight: pan(STEP, 0),
  ArrowUp: pan(0, -STEP),
  ArrowDown: pan(0, STEP),
  ",": (viewer) => viewer.goTo({ t: viewer.place.t - 1 }),
  ".": (viewer) => viewer.goTo({ t: viewer.place.t + 1 }),
  "<": (viewer) => viewer.goTo({ z: viewer.place.z - 1 }),
  ">": (viewer) => viewer.goTo({ z: viewer.place.z + 1 }),
};

async function hover(viewer, sx, sy) {
  const [x, y] = viewer.toImage(sx, sy);
  viewer.tool?.hover?.(x, y);
  if (!viewer.isInside(x, y)) return viewer.emit("hover", null);
  viewer.emit("hover", await viewer.at(x, y));
  return undefined;
}

async function click(viewer, event, sx, sy) {
  const [x, y] = viewer.toImage(sx, sy);
  if (!viewer.isInside(x, y)) return;
  const found = await viewer.at(x, y);
  viewer.emit("click", { ...found, shift: event.shiftKey });
}
