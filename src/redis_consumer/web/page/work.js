// Follows one image from the file over its upload to its job. A hook: state and what can be done.
import { call, follow, get, jobPath, Problem, post, until, uploadPath } from "./api.js";
import { isOver } from "./states.js";
import { dropUpload, uploadFile } from "./upload.js";
import { useEffect, useRef, useState } from "./vendor/preact.js";

const START = { phase: "start", progress: null, upload: null, job: null, problem: null, isAway: false };

/** Options of a job without those that nobody chose. */
const chosen = (options) =>
  Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== "" && value !== null && value !== undefined),
  );

/** Options of a job before that this one doesn't have unless they are chosen again. */
const cleared = (options) => Object.fromEntries(Object.keys(options || {}).map((name) => [name, null]));

/**
 * State of the work on one image.
 *
 * `source`: {file}, {uploadId} or {jobId}. `onAddress(name, id)` gets the place in the history as soon as there is one.
 * `onFacts(upload)` comes once when the image has been read, and returns the choices of a job that starts at once, or null.
 */
export function useWork(source, { onAddress, onFacts }) {
  const [state, setState] = useState(START);
  const stop = useRef(new AbortController());
  const change = (changes) => setState((before) => ({ ...before, ...changes }));
  const onAway = (isAway) => setState((before) => (before.isAway === isAway ? before : { ...before, isAway }));

  async function readUpload(id) {
    change({ phase: "reading" });
    onAddress("upload", id);
    const signal = stop.current.signal;
    const upload = await until(
      async () => {
        const found = await get(uploadPath(id));
        return ["ready", "unreadable"].includes(found.state) ? found : undefined;
      },
      { onAway, signal },
    );
    if (!upload) return null;
    change({ phase: upload.state, upload });
    return upload;
  }

  async function begin() {
    if (source.jobId) {
      change({ phase: "job" });
      const job = await until(() => get(jobPath(source.jobId)), { onAway, signal: stop.current.signal });
      if (!job) return;
      change({ job });
      if (job.input?.upload)
        get(uploadPath(job.input.upload)).then(
          (upload) => change({ upload }),
          () => {},
        );
      return;
    }
    let id = source.uploadId;
    if (!id && !source.file) return;
    if (source.file) {
      change({ phase: "uploading", progress: { sent: 0, size: source.file.size } });
      id = await uploadFile(source.file, {
        onProgress: (progress) => change({ progress }),
        onId: (each) => (source.id = each),
        signal: stop.current.signal,
      });
    }
    const upload = await readUpload(id);
    if (upload?.state !== "ready") return;
    const choices = await onFacts(upload);
    if (choices && source.file) await run(choices, upload);
  }

  async function run({ kind, model, options, outputs, region }, upload = state.upload) {
    change({ problem: null, isStarting: true });
    try {
      const wish = { kind, outputs, region: region || undefined };
      const before = state.job && !state.job.region ? state.job : null;
      const job = before
        ? await post(`${jobPath(before.id)}/again`, {
            ...wish,
            model: model || "",
            options: { ...cleared(before.options), ...chosen(options) },
          })
        : await post("jobs", { upload: upload.id, ...wish, model: model || undefined, options: chosen(options) });
      change({ phase: "job", job });
      onAddress("job", job.id);
    } catch (problem) {
      change({ problem });
    } finally {
      change({ isStarting: false });
    }
  }

  async function cancel() {
    try {
      if (state.phase === "uploading") {
        stop.current.abort();
        stop.current = new AbortController();
        if (source.id) dropUpload(source.id).catch(() => {});
        change({ phase: "stopped" });
      } else change({ job: (await call("DELETE", jobPath(state.job.id))) || { ...state.job, status: "cancelling" } });
    } catch (problem) {
      change({ problem });
    }
  }

  useEffect(() => {
    begin().catch(
      (problem) =>
        problem.name !== "AbortError" &&
        change({ problem: problem instanceof Problem ? problem : new Problem({ title: String(problem) }) }),
    );
    return () => stop.current.abort();
  }, []);

  const id = state.job?.id;
  const isWatched = id && !isOver(state.job);
  useEffect(() => {
    if (!isWatched) return undefined;
    return follow(`jobs=${encodeURIComponent(id)}`, { job: (job) => job.id === id && change({ job }), away: onAway });
  }, [id, isWatched]);

  return { ...state, run, cancel, setJob: (job) => change({ job }), setProblem: (problem) => change({ problem }) };
}
