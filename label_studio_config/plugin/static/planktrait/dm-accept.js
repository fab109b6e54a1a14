// "Accept sure suggestions" in Label Studio's Data Manager: how many of the selected images would be
// accepted at each confidence, and how many of them wrongly, before anything is saved.

(function () {
  if (window.planktraitAccept) return;
  window.planktraitAccept = true;

  const style = document.createElement("style");
  style.textContent = `
    .planktrait-dialog { width: 520px; max-width: calc(100vw - 32px); padding: 24px; border-radius: 8px;
      border: 1px solid var(--color-neutral-border, #d5d4cf); color: var(--color-neutral-content, #262522);
      background: var(--color-neutral-background, #fdfdfc); font: 400 14px/20px Figtree, system-ui, sans-serif;
      box-shadow: 0 12px 40px rgb(0 0 0 / 25%); margin: auto; }
    .planktrait-dialog::backdrop { background: rgb(0 0 0 / 45%); }
    .planktrait-dialog h2 { margin: 0 0 8px; font-size: 18px; line-height: 24px; font-weight: 600; }
    .planktrait-dialog p { margin: 0 0 12px; }
    .planktrait-dialog table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; margin-bottom: 12px; }
    .planktrait-dialog th { font-weight: 500; font-size: 12px; text-align: right; padding: 4px 8px;
      color: var(--color-neutral-content-subtle, #6b6860); }
    .planktrait-dialog td { text-align: right; padding: 0 8px; border-top: 1px solid var(--color-neutral-border, #e3e1db); }
    .planktrait-dialog th:first-child, .planktrait-dialog td:first-child { text-align: left; }
    .planktrait-dialog label { font: inherit; margin: 0; display: flex; gap: 8px; align-items: center; padding: 7px 0; cursor: pointer; }
    .planktrait-dialog input { margin: 0; accent-color: var(--color-primary-content, #4c5fa9); }
    .planktrait-dialog tr:has(:checked) { background: var(--color-primary-background, #f0f3fe); }
    .planktrait-dialog tr:has(:disabled) { opacity: 0.45; }
    .planktrait-dialog .error { color: var(--color-negative-content, #b3261e); }
    .planktrait-dialog footer { display: flex; justify-content: flex-end; gap: 8px; margin-top: 16px; }
    .planktrait-dialog button { height: 36px; padding: 0 16px; border-radius: 4px; cursor: pointer;
      font: 500 14px/1 Figtree, system-ui, sans-serif; color: inherit; background: transparent;
      border: 1px solid var(--color-neutral-border, #c9c7c0); }
    .planktrait-dialog button.primary { color: #fff; background: var(--color-primary-surface, #4c5fa9);
      border-color: transparent; }
    .planktrait-dialog button:disabled { opacity: 0.5; cursor: default; }
    .planktrait-dialog :focus-visible { outline: 3px solid var(--color-primary-focus-outline, #d4dbfb); outline-offset: 1px; }
  `;
  document.head.append(style);

  const whole = (number) => Number(number).toLocaleString("en");
  const images = (n) => `${whole(n)} ${n === 1 ? "image" : "images"}`;

  function make(tag, attributes = {}, ...children) {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  }

  function wrong(n) {
    if (n < 0.5) return n > 0 ? "fewer than 1" : "0";
    return `about ${whole(Math.round(n))}`;
  }

  function row(choice, picked) {
    const radio = make("input", { type: "radio", name: "confidence", value: choice.confidence });
    radio.disabled = choice.images === 0;
    radio.checked = choice === picked;
    const sure = make("label", {}, radio, `${Math.round(100 * choice.confidence)} % or more`);
    const cells = [sure, whole(choice.images), choice.images ? wrong(choice.wrong) : "–"];
    return make("tr", {}, ...cells.map((cell) => make("td", {}, cell)));
  }

  function open(preview, again) {
    const { choices, selected, waiting, usual, complete } = preview;
    const some = choices.filter((choice) => choice.images);
    const picked = some.find((choice) => choice.confidence <= usual) ?? some[0];
    const head = ["Confidence", "Images", "Expected to be wrong"].map((text) => {
      const cell = make("th", {}, text);
      cell.scope = "col";
      return cell;
    });
    const table = make("table", {},
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...choices.map((choice) => row(choice, picked))));
    const error = make("p", { className: "error", hidden: true });
    error.setAttribute("role", "alert");
    const cancel = make("button", { type: "button" }, "Cancel");
    const accept = make("button", { type: "submit", className: "primary", disabled: !picked });
    const title = make("h2", { id: "planktrait-accept" }, "Accept sure suggestions");
    const about = `Of ${images(selected)}, ${whole(waiting)} ${waiting === 1 ? "has" : "have"} a suggestion that waits ` +
      "for your answer. It is saved as your own annotation.";
    const words = [
      make("p", {}, about),
      make("p", {}, "Confidence is calibrated: of suggestions at 95 %, about one in twenty is wrong."),
    ];
    if (!complete) words.push(make("p", {}, "The project is still being read: the figures will grow."));
    const form = make("form", { method: "dialog" }, title, ...words, table, error,
      make("footer", {}, cancel, accept));
    const dialog = make("dialog", { className: "planktrait-dialog" }, form);
    dialog.setAttribute("aria-labelledby", title.id);

    const chosen = () => choices.find((one) => String(one.confidence) === form.elements.confidence.value);
    const name = () => {
      accept.textContent = chosen() ? `Accept ${images(chosen().images)}` : "Accept";
    };
    form.addEventListener("change", name);
    name();
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      accept.disabled = true;
      accept.textContent = "Accepting …";
      try {
        const response = await again({ confidence: chosen().confidence });
        if (response.ok) return dialog.close();
        error.textContent = (await response.json()).detail ?? `The server answered ${response.status}.`;
      } catch {
        error.textContent = "The server does not answer.";
      }
      error.hidden = false;
      accept.disabled = false;
      name();
      return undefined;
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input:checked") ?? cancel).focus();
  }

  window.addEventListener("planktrait:answer", ({ detail }) => {
    if (detail.answer.preview) open(detail.answer.preview, detail.again);
  });
})();
