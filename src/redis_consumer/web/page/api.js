// Calls of the server's API, addresses, events of jobs, and problems in the words of the server.

const BASE = "/api/v1";

/** An answer that isn't a success: `title`, `detail`, `hint`, `field`, `status`. Status 0: the server can't be reached. */
export class Problem extends Error {
  constructor({ status = 0, title = "", detail = "", hint = "", field = "" }) {
    super(detail || title);
    Object.assign(this, { status, title, detail, hint, field });
  }
}

const AWAY = {
  title: "The server cannot be reached",
  detail: "The page retries by itself.",
  hint: "Check that the server runs.",
};

async function problemOf(reply) {
  try {
    const found = await reply.json();
    return new Problem({ ...found, status: reply.status });
  } catch {
    return new Problem({
      status: reply.status,
      title: `The server answered ${reply.status}`,
      detail: reply.statusText,
    });
  }
}

/** Send a request; returns the JSON of the answer, or null if it has none. Raises Problem. */
export async function call(method, path, body, headers = {}) {
  let reply;
  try {
    const content = body === undefined ? {} : { "Content-Type": "application/json" };
    reply = await fetch(path.startsWith("/") ? path : `${BASE}/${path}`, {
      method,
      headers: { ...content, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(AWAY);
  }
  if (!reply.ok) throw await problemOf(reply);
  return reply.status === 204 ? null : reply.json();
}

export const get = (path) => call("GET", path);
export const post = (path, body) =>
  call("POST", path, body, { "Idempotency-Key": crypto.randomUUID?.() || `${Date.now()}-${Math.random()}` });
export const jobPath = (id) => `jobs/${encodeURIComponent(id)}`;
export const uploadPath = (id) => `uploads/${encodeURIComponent(id)}`;
export const viewBase = (path) => `${BASE}/${path}/view`;
export const fileUrl = (id, name) => `${BASE}/${jobPath(id)}/files/${encodeURIComponent(name)}`;
export const objectsUrl = (id) => `${BASE}/${jobPath(id)}/objects?format=csv`;
export const batchUrl = (id, name) => `${BASE}/batches/${encodeURIComponent(id)}/${name}`;

/** {name, id, query} of "#/name/id?query". */
export function readHash(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name = "", ...rest] = path.split("/");
  return { name, id: decodeURIComponent(rest.join("/")), query: Object.fromEntries(new URLSearchParams(query)) };
}

const once = new Map();

/** Answers that don't change while the page is open, such as kinds and models; asked once. */
export function getOnce(path) {
  if (!once.has(path)) {
    once.set(
      path,
      get(path).catch((problem) => {
        once.delete(path);
        throw problem;
      }),
    );
  }
  return once.get(path);
}

/** Repeat `look` until it returns something other than undefined. Waits while the server can't be reached. */
export async function until(look, { pause = 400, onAway = () => {}, signal } = {}) {
  for (let wait = pause; !signal?.aborted; wait = Math.min(3000, wait * 1.3)) {
    try {
      const found = await look();
      onAway(false);
      if (found !== undefined) return found;
    } catch (problem) {
      if (!(problem instanceof Problem) || (problem.status && ![429, 502, 503, 504].includes(problem.status)))
        throw problem;
      onAway(true);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  return undefined;
}

/**
 * Follow jobs, a batch or the queues. `query`: "jobs=a,b", "batch=ID" or "queues=1". `handlers`: {job, batch, queues, away}.
 *
 * The connection is closed while nobody sees the page, so many tabs don't use up the connections of a browser. The server
 * sends a snapshot first, so nothing is missed. Returns a function that ends it.
 */
export function follow(query, handlers) {
  let source = null;
  let retry = 0;
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(`${BASE}/events?${query}`);
    source.onopen = () => handlers.away?.(false);
    for (const name of ["job", "batch", "queues"]) {
      source.addEventListener(name, (event) => handlers[name]?.(JSON.parse(event.data)));
    }
    source.onerror = () => {
      handlers.away?.(true);
      if (source?.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
      close();
      retry = setTimeout(open, 3000);
    };
  };
  const close = () => {
    clearTimeout(retry);
    source?.close();
    source = null;
  };
  const look = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", look);
  open();
  return () => {
    document.removeEventListener("visibilitychange", look);
    close();
  };
}
