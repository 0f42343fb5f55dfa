// Many files: uploaded together, settings confirmed once on the first image, then run as a batch.
import { get, getOnce, post, uploadPath, until } from "./api.js";
import { choicesOf, NO_CHOICES, Settings } from "./settings.js";
import { takeFiles } from "./start.js";
import { ProblemBox, Progress, useLoaded } from "./ui.js";
import { uploadFile } from "./upload.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { bytes, count, duration, plural } from "./words.js";

const AT_ONCE = 3;

/** Upload files, three at a time; `onChange` gets how it goes. Returns [{file, id, problem}]. */
async function uploadAll(files, { onChange, onFirst, signal }) {
  const rows = files.map((file) => ({ file, id: null, sent: 0, problem: null }));
  let next = 0;
  let told = 0;
  const tell = (force) => {
    if (!force && performance.now() < told + 200) return;
    told = performance.now();
    onChange({
      done: rows.filter((row) => row.id || row.problem).length,
      sent: rows.reduce((sum, row) => sum + row.sent, 0),
      isLost: rows.some((row) => row.isLost),
      failed: rows.filter((row) => row.problem),
    });
  };
  const worker = async () => {
    while (next < rows.length && !signal.aborted) {
      const row = rows[next++];
      try {
        row.id = await uploadFile(row.file, {
          signal,
          onProgress: ({ sent, isLost }) => {
            Object.assign(row, { sent, isLost });
            tell();
          },
        });
        row.sent = row.file.size;
        if (row === rows[0]) onFirst(row.id);
      } catch (problem) {
        if (problem.name !== "AbortError") row.problem = problem;
      }
      tell(true);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return rows;
}

const folderName = (files) => {
  const folder = files[0]?.webkitRelativePath?.split("/")[0];
  return folder || `${plural(files.length, "image")}, ${new Date().toISOString().slice(0, 10)}`;
};

export function NewBatch() {
  const [files] = useState(takeFiles);
  const [name, setName] = useState(folderName(files));
  const [state, setState] = useState({ done: 0, sent: 0, failed: [] });
  const [upload, setUpload] = useState(null);
  const [rows, setRows] = useState(null);
  const [choices, setChoices] = useState(NO_CHOICES);
  const [problem, setProblem] = useState(null);
  const [isWanted, setWanted] = useState(false);
  const [kinds] = useLoaded(() => getOnce("kinds"), []);
  const [models] = useLoaded(() => getOnce("models"), []);
  const begun = useRef(performance.now());
  const size = files.reduce((sum, file) => sum + file.size, 0);

  useEffect(() => {
    if (!files.length) return undefined;
    const stop = new AbortController();
    const onFirst = async (id) => {
      const found = await until(
        async () => {
          const each = await get(uploadPath(id));
          return ["ready", "unreadable"].includes(each.state) ? each : undefined;
        },
        { signal: stop.signal },
      );
      if (!found) return;
      setUpload(found);
      setChoices(choicesOf(found.facts, await getOnce("kinds").catch(() => [])));
    };
    uploadAll(files, { onChange: setState, onFirst, signal: stop.signal }).then(
      (all) => !stop.signal.aborted && setRows(all),
      setProblem,
    );
    return () => stop.abort();
  }, []);

  const run = async () => {
    const { kind, model, options } = choices;
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== "" && value !== null));
    try {
      const batch = await post("batches", {
        name,
        uploads: rows.filter((row) => row.id).map((row) => row.id),
        kind,
        model: model || undefined,
        options: given,
      });
      location.hash = `#/batch/${encodeURIComponent(batch.id)}`;
    } catch (found) {
      setProblem(found);
      setWanted(false);
    }
  };
  useEffect(() => {
    if (isWanted && rows) run();
  }, [isWanted, rows]);

  if (!files.length)
    return html`<div class="start"><h1>No files are chosen</h1><p>The page was loaded again before the upload ended.</p><a class="button primary" href="#/">Choose files</a></div>`;
  const share = size ? (100 * state.sent) / size : 0;
  const seconds = (performance.now() - begun.current) / 1000;
  const left = share > 2 && share < 100 ? `, about ${duration((seconds / share) * (100 - share))} left` : "";
  const change = (changes) => setChoices((before) => ({ ...before, ...changes }));
  return html`
    <div class="title"><h1>New batch: ${plural(files.length, "file")}</h1></div>
    <div class="columns">
      <div class="wide">
        <div class="card stack">
          <div class="field"><label for="batch-name">Name</label><input id="batch-name" value=${name} onInput=${(event) => setName(event.target.value)} /></div>
          <div role="status"><p>${rows ? `${count(state.done - state.failed.length)} files are uploaded (${bytes(size)}).` : `Uploading: ${count(state.done)} of ${plural(files.length, "file")}, ${bytes(state.sent)} of ${bytes(size)}${left}`}</p>
            ${state.isLost && html`<p class="hint">The connection was lost. The upload continues by itself.</p>`}</div>
          ${!rows && html`<${Progress} value=${share} label="Upload" />`}
          ${upload?.facts?.thumbnail && html`<figure><img src=${upload.facts.thumbnail} alt=${`First image: ${upload.name}`} /><figcaption class="hint">${upload.name}: ${upload.facts.width} × ${upload.facts.height} pixels</figcaption></figure>`}
          ${upload?.state === "unreadable" && html`<${ProblemBox} problem=${upload.problem || { title: `${upload.name} cannot be read` }} tone="warn" />`}
          ${
            state.failed.length > 0 &&
            html`<${ProblemBox} tone="warn" problem=${{ title: `${plural(state.failed.length, "file")} could not be uploaded`, hint: "The batch runs without them." }}>
            <ul class="files-chosen">${state.failed.slice(0, 100).map((row) => html`<li><span>${row.file.name}</span><span>${row.problem.message}</span></li>`)}</ul><//>`
          }
          ${problem && html`<${ProblemBox} problem=${problem} />`}
          ${isWanted && !rows && html`<p role="status">The batch starts when all files are uploaded.</p>`}
        </div>
      </div>
      <${Settings} work=${{ upload: upload || (rows && { state: "ready" }), job: null, isStarting: isWanted }} kinds=${kinds} models=${models} choices=${choices} onChange=${change} onTool=${() => {}} tool=""
        isBatch runText=${`Run ${plural(files.length, "image")}`} onRun=${() => setWanted(true)} />
    </div>`;
}
