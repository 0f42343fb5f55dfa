// Parts that several screens use.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { problemTitle } from "./words.js";

/** A text in the browser's storage, as state. */
export function useStored(name, initial) {
  const [value, set] = useState(() => {
    try {
      return localStorage.getItem(name) ?? initial;
    } catch {
      return initial;
    }
  });
  const store = (next) => {
    set(next);
    try {
      localStorage.setItem(name, next);
    } catch {
      // not kept over a reload
    }
  };
  return [value, store];
}

/** What `load` returns, null until then; its Problem is thrown away unless `onProblem` is given. */
export function useLoaded(load, inputs, onProblem = () => {}) {
  const [value, set] = useState(null);
  useEffect(() => {
    let isWanted = true;
    load().then(
      (found) => isWanted && set(found),
      (problem) => isWanted && onProblem(problem),
    );
    return () => (isWanted = false);
  }, inputs);
  return [value, set];
}

/** A problem in words: what is wrong, what to do, and buttons that do it. */
export const ProblemBox = ({ problem, tone = "bad", children }) => html`
  <div class=${`box ${tone}`} role=${tone === "bad" ? "alert" : "status"}>
    <strong>${problemTitle(problem.title)}</strong>
    ${problem.detail && problem.detail !== problem.title && html`<p>${problem.detail}</p>`}
    ${problem.hint && html`<p class="hint">${problem.hint}</p>`}
    ${children && html`<div class="actions">${children}</div>`}
  </div>`;

export const Progress = ({ value, label }) => html`
  <progress max="100" value=${value ?? undefined} aria-label=${label}></progress>`;

/** What is wider than a narrow screen; the keyboard scrolls it, too. */
export const Scroll = ({ label, children }) =>
  html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>${children}</div>`;

/** A field with its label above it. */
export const Field = ({ label, hint, id, children }) => html`
  <div class="field">
    <label for=${id}>${label}</label>
    ${children}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
  </div>`;

/** A button that opens a list of links and buttons. Escape and a click elsewhere close it. */
export function Menu({ label, children, isDisabled }) {
  const [isOpen, setOpen] = useState(false);
  const box = useRef(null);
  useEffect(() => {
    if (!isOpen) return undefined;
    const close = (event) => {
      if (event.type === "keydown" ? event.key === "Escape" : !box.current?.contains(event.target)) setOpen(false);
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("keydown", close);
    };
  }, [isOpen]);
  return html`
    <div class="menu" ref=${box}>
      <button type="button" aria-expanded=${isOpen} disabled=${isDisabled} onClick=${() => setOpen(!isOpen)}>${label} <span aria-hidden="true">▾</span></button>
      ${isOpen && html`<div class="menu-list" onClick=${(event) => event.target.closest("a") && setOpen(false)}>${children}</div>`}
    </div>`;
}

/** A dialog over the page; Escape closes it. */
export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  useEffect(() => element.current?.showModal(), []);
  return html`
    <dialog ref=${element} aria-labelledby="dialog-title" onClose=${onClose}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
      <div class="actions"><button type="button" onClick=${() => element.current.close()}>Close</button></div>
    </dialog>`;
}

/** Announces a change to screen readers, at most every five seconds. */
export function Status({ text }) {
  const [said, say] = useState(text);
  const last = useRef(0);
  useEffect(() => {
    const timer = setTimeout(
      () => {
        last.current = Date.now();
        say(text);
      },
      Math.max(0, 5000 - (Date.now() - last.current)),
    );
    return () => clearTimeout(timer);
  }, [text]);
  return html`<p class="visually-hidden" role="status">${said}</p>`;
}

/** Copy a text; where the browser forbids it, select it in a prompt. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    window.prompt("Copy this link:", text);
    return false;
  }
}

/** A sorted, scrolled table of many rows; only those that are seen are in the document. */
export function LongTable({ columns, rows, rowKey, selected, onSelect, sort, onSort, label, height = 360 }) {
  const box = useRef(null);
  const [top, setTop] = useState(0);
  const ROW = 30;
  const first = Math.max(0, Math.floor(top / ROW) - 8);
  const last = Math.min(rows.length, first + Math.ceil(height / ROW) + 16);
  useEffect(() => {
    const index = rows.findIndex((row) => rowKey(row) === selected);
    const element = box.current;
    if (index < 0 || !element) return;
    const y = index * ROW;
    if (y < element.scrollTop || y > element.scrollTop + height - 3 * ROW)
      element.scrollTop = Math.max(0, y - height / 2);
  }, [selected, rows]);
  const onKeyDown = (event) => {
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (!step || !rows.length) return;
    event.preventDefault();
    const index = rows.findIndex((row) => rowKey(row) === selected);
    onSelect(rowKey(rows[Math.max(0, Math.min(rows.length - 1, index + step))]));
  };
  return html`
    <div class="long-table" ref=${box} tabindex="0" role="region" aria-label=${label} onScroll=${(event) => setTop(event.currentTarget.scrollTop)} onKeyDown=${onKeyDown}>
      <table aria-rowcount=${rows.length + 1}>
        <thead><tr>${columns.map(
          (column) => html`
          <th scope="col" aria-sort=${sort?.name === column.name ? (sort.isDown ? "descending" : "ascending") : "none"}>
            <button type="button" onClick=${() => onSort(column.name)}>${column.title} <span aria-hidden="true">${sort?.name === column.name ? (sort.isDown ? "▾" : "▴") : ""}</span></button>
          </th>`,
        )}</tr></thead>
        <tbody>
          ${first > 0 && html`<tr aria-hidden="true" style=${{ height: `${first * ROW}px` }}></tr>`}
          ${rows.slice(first, last).map(
            (row, i) => html`
            <tr key=${rowKey(row)} aria-rowindex=${first + i + 2} class=${rowKey(row) === selected ? "selected" : ""} onClick=${() => onSelect(rowKey(row))}>
              ${columns.map((column) => html`<td>${column.show(row)}</td>`)}
            </tr>`,
          )}
          ${last < rows.length && html`<tr aria-hidden="true" style=${{ height: `${(rows.length - last) * ROW}px` }}></tr>`}
        </tbody>
      </table>
    </div>`;
}
