// What an action of ours has done, below Label Studio's Data Manager, with "Undo" where it judged.

(function () {
  if (window.planktraitNotice) return;
  window.planktraitNotice = true;

  const TOKEN = document.currentScript?.dataset.csrf ?? "";
  const OURS = [
    ...["accept_suggestions", "label_as", "learn_features", "mark_blind", "second_opinion", "suggest_labels"],
  ];
  const KEPT = "planktrait-notice";

  const style = document.createElement("style");
  style.textContent = `
    .planktrait-notice { position: fixed; left: 50%; bottom: 20px; transform: translateX(-50%); z-index: 1000;
      display: flex; align-items: center; gap: 12px; max-width: min(760px, calc(100vw - 48px)); padding: 10px 12px 10px 16px;
      border-radius: 6px; font: 400 14px/20px Figtree, system-ui, sans-serif; color: #fdfdfc; background: #2b2a27;
      box-shadow: 0 6px 24px rgb(0 0 0 / 30%); }
    .planktrait-notice button { flex: none; height: 30px; padding: 0 12px; border-radius: 4px; cursor: pointer;
      font: 500 14px/1 Figtree, system-ui, sans-serif; color: #fdfdfc; background: transparent; border: 1px solid #85827a; }
    .planktrait-notice button:hover { background: #45433e; }
    .planktrait-notice button:focus-visible { outline: 3px solid #8fa0f0; }
    .planktrait-notice button:disabled { opacity: 0.6; cursor: default; }
    .planktrait-notice .close { border: 0; padding: 0 8px; }
  `;
  document.head.append(style);

  const box = document.createElement("div");
  box.className = "planktrait-notice";
  const words = document.createElement("span");
  words.setAttribute("role", "status");
  const undo = document.createElement("button");
  undo.type = "button";
  undo.textContent = "Undo";
  const close = document.createElement("button");
  close.type = "button";
  close.className = "close";
  close.textContent = "✕";
  close.setAttribute("aria-label", "Close");
  box.append(words, undo, close);

  let told = null;

  function projectId() {
    const found = /^\/projects\/(\d+)\/data/.exec(window.location.pathname);
    return found ? Number(found[1]) : null;
  }

  function keep() {
    try {
      if (told) window.sessionStorage.setItem(KEPT, JSON.stringify(told));
      else window.sessionStorage.removeItem(KEPT);
    } catch {
      // Without storage the offer ends with the page.
    }
  }

  function say(text, order = null) {
    told = { text, order, project: projectId() };
    keep();
    show();
  }

  function show() {
    if (!told || told.project !== projectId()) {
      box.remove();
      return;
    }
    words.textContent = told.text;
    undo.hidden = !told.order;
    undo.disabled = false;
    document.body.append(box);
  }

  /** The tasks as they are now; not where somebody is at work in one. */
  function reload() {
    if (/[?&](task|labeling)=/.test(window.location.search)) return;
    if (window.dataManager?.reload) window.dataManager.reload();
    else window.location.reload();
  }

  close.addEventListener("click", () => {
    told = null;
    keep();
    show();
  });

  undo.addEventListener("click", async () => {
    const { order, project } = told;
    undo.disabled = true;
    let undone = 0;
    let kept = 0;
    try {
      for (let left = 1; left; ) {
        const response = await window.fetch(`/api/planktrait/projects/${project}/judgements/undo-order`, {
          method: "POST",
          credentials: "same-origin",
          headers: { "Content-Type": "application/json", "X-CSRFToken": TOKEN },
          body: JSON.stringify({ key: order }),
        });
        if (!response.ok) throw new Error(String(response.status));
        const answer = await response.json();
        undone += answer.undone;
        kept += answer.kept;
        left = answer.left;
        words.textContent = `Undone: ${undone.toLocaleString("en")} images …`;
      }
    } catch {
      say("It was not undone to its end: the server does not answer, or you are not logged in any more.", order);
      return;
    }
    const rest = kept ? ` ${kept.toLocaleString("en")} were changed since and stay.` : "";
    say(`Undone: ${undone.toLocaleString("en")} ${undone === 1 ? "image" : "images"}.${rest}`);
    reload();
  });

  window.addEventListener("planktrait:answer", ({ detail }) => {
    const { action, answer } = detail;
    if (!OURS.includes(action) || answer.preview || !answer.detail) return;
    say(answer.detail, answer.order ?? null);
    if (action === "accept_suggestions" && answer.reload) reload();
  });

  window.addEventListener("planktrait:job", ({ detail: job }) => {
    if (!job.result?.words) return;
    say(job.result.words, job.result.order ?? null);
    reload();
  });

  try {
    told = JSON.parse(window.sessionStorage.getItem(KEPT) ?? "null");
  } catch {
    told = null;
  }
  show();
  window.addEventListener("popstate", show);
})();
