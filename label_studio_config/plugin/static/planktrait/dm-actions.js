// Beside Label Studio's Data Manager: goes where an action of ours leads, and shows the progress of
// the project's jobs in the header. Answers and jobs that end are told to dm-accept.js and
// dm-notice.js as events of the window.

(function () {
  // Label Studio may run a page's scripts again when it changes pages.
  if (window.planktraitActions) return;
  window.planktraitActions = true;

  const CLASS = "planktrait-jobs";
  const WORKING_MS = 2000;
  const IDLE_MS = 30000;
  const SHOWN_AFTER_END_MS = 20000;
  const ACTIVE = ["queued", "running"];

  const style = document.createElement("style");
  style.textContent = `
    .${CLASS} { display: inline-flex; align-items: center; gap: 8px; height: 32px; margin-left: 12px;
      margin-right: 12px; align-self: center; font: 400 13px/1.4 Figtree, system-ui, sans-serif; text-decoration: none;
      white-space: nowrap; color: var(--color-neutral-content, #333); max-width: 330px; overflow: hidden; }
    .${CLASS} progress { width: 96px; height: 6px; accent-color: var(--color-primary-content, #4c5fa9); }
    .${CLASS} span { overflow: hidden; text-overflow: ellipsis; }
    .${CLASS}:hover span { text-decoration: underline; }
  `;
  document.head.append(style);

  const chip = document.createElement("a");
  chip.className = CLASS;
  chip.dataset.external = "true";
  const bar = document.createElement("progress");
  const words = document.createElement("span");
  // Not of the link: it would be a link no more.
  words.setAttribute("role", "status");
  bar.setAttribute("aria-label", "Progress");
  chip.append(bar, words);

  let timer = 0;
  let watched = null;
  let endedAt = 0;

  function projectId() {
    const found = /^\/projects\/(\d+)\/data/.exec(window.location.pathname);
    return found ? found[1] : null;
  }

  function say(job) {
    const { done, total, stage } = job.progress ?? {};
    const share = total ? `${done.toLocaleString()} of ${total.toLocaleString()}` : (stage ?? "waiting");
    const state = ACTIVE.includes(job.state) ? share : job.state;
    words.textContent = chip.title = `${job.name.replace(/ (?:(?:for|of|in|into) )?project \d+/, "")}: ${state}`;
    bar.hidden = !ACTIVE.includes(job.state);
    if (total) {
      bar.max = total;
      bar.value = done;
    } else {
      bar.removeAttribute("value");
    }
    const link = document.querySelector(".planktrait-gallery-link");
    if (link && !chip.isConnected) link.parentElement.insertBefore(chip, link.previousElementSibling ?? link);
  }

  async function look() {
    window.clearTimeout(timer);
    const id = projectId();
    if (id === null || document.hidden) {
      if (id === null) chip.remove();
      timer = window.setTimeout(look, IDLE_MS);
      return;
    }
    let next = IDLE_MS;
    try {
      const response = await theirs(`/api/planktrait/projects/${id}/jobs`);
      const { jobs } = await response.json();
      const job = jobs.find((one) => one.id === watched) ?? jobs.find((one) => ACTIVE.includes(one.state));
      if (job && (ACTIVE.includes(job.state) || job.id === watched)) {
        chip.href = `/planktrait/projects/${id}/model`;
        if (watched !== job.id) endedAt = 0;
        watched = job.id;
        say(job);
        if (ACTIVE.includes(job.state)) {
          next = WORKING_MS;
        } else {
          if (!endedAt) tell("planktrait:job", job);
          endedAt ||= Date.now();
          if (Date.now() - endedAt > SHOWN_AFTER_END_MS) {
            watched = null;
            chip.remove();
          } else {
            next = WORKING_MS;
          }
        }
      } else {
        chip.remove();
      }
    } catch {
      chip.remove();  // the server is away, or the backend: the page says so itself where it matters
    }
    timer = window.setTimeout(look, next);
  }

  const theirs = window.fetch.bind(window);

  const tell = (name, detail) => window.dispatchEvent(new CustomEvent(name, { detail }));

  /** The same once more, with further words in its body. */
  const again = (asked) => (more) => {
    const [address, options] = asked;
    const body = JSON.stringify({ ...JSON.parse(options?.body ?? "{}"), ...more });
    return window.fetch(address, { ...options, body });
  };

  window.fetch = async (...asked) => {
    const response = await theirs(...asked);
    const address = typeof asked[0] === "string" ? asked[0] : (asked[0]?.url ?? String(asked[0]));
    if (response.ok && address.includes("/api/dm/actions") && address.includes("id=")) {
      response
        .clone()
        .json()
        .then((answer) => {
          // Only ever to a page of ours on this server.
          if (typeof answer.address === "string" && answer.address.startsWith("/planktrait/")) {
            window.location.assign(answer.address);
          }
          if (typeof answer.job === "string") {
            watched = answer.job;
            endedAt = 0;
            look();
          }
          const action = /[?&]id=(\w+)/.exec(address)[1];
          tell("planktrait:answer", { action, answer, again: again(asked) });
        })
        .catch(() => {});
    }
    return response;
  };

  document.addEventListener("visibilitychange", () => document.hidden || look());
  window.addEventListener("popstate", look);
  look();
})();
