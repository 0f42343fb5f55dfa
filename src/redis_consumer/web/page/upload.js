// Uploads files by tus 1.0: in pieces, continued after a lost connection or a closed page.
import { call, post, Problem } from "./api.js";

const PIECE = 8 * 1024 * 1024;
const TUS = { "Tus-Resumable": "1.0.0" };
const WAITS = [1, 2, 5, 10]; // seconds between tries

const keyOf = (file) => `upload:${file.name}:${file.size}:${file.lastModified}`;

function recall(file) {
  try {
    return localStorage.getItem(keyOf(file));
  } catch {
    return null; // no storage in this browser: the upload begins anew after a reload
  }
}

function remember(file, id) {
  try {
    if (id) localStorage.setItem(keyOf(file), id);
    else localStorage.removeItem(keyOf(file));
  } catch {
    // as above
  }
}

/** Bytes that the server has of an upload; null if it doesn't know the upload. */
async function offsetOf(url, signal) {
  const reply = await fetch(url, { method: "HEAD", headers: TUS, signal });
  if (reply.status === 404 || reply.status === 410) return null;
  if (!reply.ok) throw new Problem({ status: reply.status, title: "The upload cannot be continued" });
  return Number(reply.headers.get("Upload-Offset"));
}

/** Send a piece. XMLHttpRequest, since fetch doesn't tell how much has been sent. */
function sendPiece(url, file, offset, { onSent, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PATCH", url);
    for (const [name, value] of Object.entries({
      ...TUS,
      "Upload-Offset": offset,
      "Content-Type": "application/offset+octet-stream",
    })) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = (event) => onSent(offset + event.loaded);
    request.onerror = () => reject(new Problem({ title: "The connection was lost" }));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    request.onload = () => {
      if (request.status < 300) return resolve(Number(request.getResponseHeader("Upload-Offset")));
      let found = {};
      try {
        found = JSON.parse(request.responseText);
      } catch {
        found = { title: `The server answered ${request.status}` };
      }
      return reject(new Problem({ ...found, status: request.status }));
    };
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file.slice(offset, offset + PIECE));
  });
}

async function begin(file, signal) {
  const known = recall(file);
  if (known) {
    const url = `/api/v1/uploads/${encodeURIComponent(known)}`;
    const offset = await offsetOf(url, signal);
    if (offset !== null && offset < file.size) return { id: known, url, offset };
  }
  const { id, tus } = await post("uploads", { name: file.webkitRelativePath || file.name, size: file.size });
  remember(file, id);
  return { id, url: tus, offset: 0 };
}

// 0: the server can't be reached. 409: it has other bytes than expected, which the next HEAD says.
const RETRIED = [0, 409, 502, 503, 504];
const canRetry = (problem) => problem instanceof Problem && RETRIED.includes(problem.status);

/**
 * Upload a file; returns the id of the upload.
 *
 * `onProgress({sent, size, rate (bytes/s), isLost})`. A lost connection is retried until `signal` ends it. Raises Problem if the
 * server refuses the file.
 */
export async function uploadFile(file, { onProgress = () => {}, onId = () => {}, signal } = {}) {
  let place = null;
  let tries = 0;
  let rate = 0;
  let last = null;
  const onSent = (sent) => {
    const now = performance.now();
    if (last && now > last.now + 300)
      rate = rate
        ? 0.7 * rate + (0.3 * 1000 * (sent - last.sent)) / (now - last.now)
        : (1000 * (sent - last.sent)) / (now - last.now);
    if (!last || now > last.now + 300) last = { now, sent };
    onProgress({ sent, size: file.size, rate, isLost: false });
  };
  while (!place || place.offset < file.size) {
    try {
      if (!place) place = await begin(file, signal);
      else if (tries) place.offset = await offsetOf(place.url, signal);
      if (place.offset === null) {
        remember(file, null); // the server doesn't know it any more
        place = null;
        continue;
      }
      onId(place.id);
      if (place.offset < file.size) place.offset = await sendPiece(place.url, file, place.offset, { onSent, signal });
      if (!file.size) break;
      tries = 0;
    } catch (problem) {
      const isLost = problem instanceof TypeError || canRetry(problem);
      if (!isLost || signal?.aborted) throw problem;
      onProgress({ sent: place?.offset || 0, size: file.size, rate: 0, isLost: true });
      last = null;
      await pause(WAITS[Math.min(tries, WAITS.length - 1)], signal);
      tries += 1;
    }
  }
  remember(file, null);
  return place.id;
}

/** Wait for some seconds, less if the browser gets its network back. */
function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    window.addEventListener("online", resolve, { once: true });
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(new DOMException("stopped", "AbortError"));
      },
      { once: true },
    );
  });
}

export const dropUpload = (id) => call("DELETE", `uploads/${encodeURIComponent(id)}`, undefined, TUS);

/** Files of a drop, those of folders too, without what systems add by themselves. At most `most`. */
export async function filesOf(dataTransfer, most = 20000) {
  const entries = [...dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...dataTransfer.files];
  const files = [];
  const walk = async (entry) => {
    if (files.length >= most || isHidden(entry.name)) return;
    if (entry.isFile) {
      files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const found = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!found.length) return;
      for (const each of found) await walk(each);
    }
  };
  for (const entry of entries) await walk(entry);
  return files;
}

export const isHidden = (name) => name.startsWith(".") || ["Thumbs.db", "desktop.ini", "__MACOSX"].includes(name);
