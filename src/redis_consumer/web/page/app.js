// The frame of the page: header, screens by the address after #, keyboard help.
import { get, readHash } from "./api.js";
import { Start } from "./start.js";
import { Dialog, ProblemBox, useLoaded } from "./ui.js";
import { html, render, useEffect, useState } from "./vendor/preact.js";

// Screens that aren't needed at first are loaded when they are opened.
const SCREENS = {
  "": { load: async () => Start, title: "Segment" },
  image: { load: async () => (await import("./image.js")).ImageScreen, title: "Image" },
  upload: { load: async () => (await import("./image.js")).ImageScreen, title: "Image" },
  job: { load: async () => (await import("./image.js")).ImageScreen, title: "Image" },
  batches: { load: async () => (await import("./batches.js")).Batches, title: "Batches" },
  batch: { load: async () => (await import("./batch.js")).Batch, title: "Batch" },
  "new-batch": { load: async () => (await import("./new_batch.js")).NewBatch, title: "New batch" },
  queues: { load: async () => (await import("./queues.js")).Queues, title: "Queues" },
};

const KEYS = [
  ["+  −  0  1", "Zoom in, zoom out, fit, one pixel to one"],
  ["← → ↑ ↓", "Move the image"],
  ["Space (hold)", "Hide the mask"],
  ["o", "Outlines or filled"],
  ["[  ]", "Less or more opacity"],
  ["a", "Automatic contrast"],
  ["c, then 1–9", "Show or hide a channel"],
  [",  .", "Previous or next frame"],
  ["<  >", "Plane below or above"],
  ["n  p", "Next or previous object"],
  ["Enter", "Select the object in the middle"],
  ["j  k", "Down or up in a list"],
  ["Delete  m  Ctrl+Z", "In edit mode: delete, merge, undo"],
];

const Help = ({ onClose }) => html`
  <${Dialog} title="Keyboard" onClose=${onClose}>
    <dl class="keys">${KEYS.map(([keys, text]) => html`<div><dt><kbd>${keys}</kbd></dt><dd>${text}</dd></div>`)}</dl>
    <p class="hint">Keys for the image work while the image has the focus, or nothing else has.</p>
  <//>`;

function Login({ onDone }) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try {
      const { login } = await import("./login.js");
      await login(token.trim());
      onDone();
    } catch (found) {
      setProblem(found);
    }
  };
  return html`
    <form class="card narrow" onSubmit=${submit}>
      <h1>Sign in</h1>
      <label for="token">Token</label>
      <input id="token" type="password" autocomplete="current-password" value=${token} onInput=${(event) => setToken(event.target.value)} />
      <p class="hint">Your operator makes one with <code>redis-consumer tokens new NAME</code>.</p>
      ${problem && html`<${ProblemBox} problem=${problem} />`}
      <div class="actions"><button class="primary">Sign in</button></div>
    </form>`;
}

function App() {
  const [shown, setShown] = useState(null); // {Screen, place}: always of one address
  const [hasHelp, setHelp] = useState(false);
  const [problem, setProblem] = useState(null);
  const [visit, setVisit] = useState(0);
  const [me] = useLoaded(() => get("me"), [visit], setProblem);

  useEffect(() => {
    let number = 0;
    const onHash = async () => {
      const place = { ...readHash(location.hash), number: ++number };
      const screen = SCREENS[place.name] || SCREENS[""];
      try {
        const Screen = await screen.load();
        if (place.number !== number) return;
        document.title = screen.title === "Segment" ? "Segment" : `${screen.title} · Segment`;
        setShown({ Screen, place });
      } catch (found) {
        setProblem(found);
      }
    };
    const onKey = (event) => event.key === "?" && !event.target.closest("input, select, textarea") && setHelp(true);
    onHash();
    addEventListener("hashchange", onHash);
    addEventListener("keydown", onKey);
    return () => {
      removeEventListener("hashchange", onHash);
      removeEventListener("keydown", onKey);
    };
  }, []);

  const signOut = async () => {
    const { logout } = await import("./login.js");
    await logout();
    location.reload();
  };
  const isAt = (...names) => (names.includes(shown?.place.name) ? "page" : undefined);
  const needsLogin = problem?.status === 401;
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    }}>Skip to content</a>
    <header class="top">
      <nav aria-label="Main">
        <a class="brand" href="#/" aria-current=${isAt("", "image", "upload", "job")}><span class="logo" aria-hidden="true"></span>Segment</a>
        <a href="#/batches" aria-current=${isAt("batches", "batch", "new-batch")}>Batches</a>
        <a href="#/queues" aria-current=${isAt("queues")}>Queues</a>
      </nav>
      <div class="right">
        ${me?.name && html`<span class="user">${me.name}</span>`}
        ${me?.name && me.login === "token" && html`<button type="button" class="quiet" onClick=${signOut}>Sign out</button>`}
        <button type="button" class="quiet" aria-label="Keyboard help" title="Keyboard help" onClick=${() => setHelp(true)}>?</button>
      </div>
    </header>
    <main id="main" tabindex="-1">
      ${
        needsLogin
          ? html`<${Login} onDone=${() => {
              setProblem(null);
              setVisit(visit + 1);
            }} />`
          : problem
            ? html`<${ProblemBox} problem=${problem}><button type="button" onClick=${() => {
                setProblem(null);
                setVisit(visit + 1);
              }}>Try again</button><//>`
            : shown && html`<${shown.Screen} key=${shown.place.number} place=${shown.place} me=${me} />`
      }
    </main>
    ${hasHelp && html`<${Help} onClose=${() => setHelp(false)} />`}`;
}

const root = document.getElementById("app");
root.textContent = "";
render(html`<${App} />`, root);
