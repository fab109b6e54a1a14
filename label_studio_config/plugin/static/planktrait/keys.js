// The keyboard: which key does what. A label's own hotkey wins over a letter of ours, which then
// needs Shift. Where another tab is shown, nothing is judged by a key.

import { byId } from "./dom.js";

/** Where letters are typed, or choose something. */
export const TYPED = "input:not([type=checkbox]):not([type=radio]):not([type=range]), select, textarea";
const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

export class Keys {
  /** `commands`: by letter, `{run, text}`; `act`: the other things that keys do. */
  constructor({ commands, act, hotkeys, selection, mosaic, typeahead }) {
    Object.assign(this, { commands, act, hotkeys, selection, mosaic, typeahead });
    document.addEventListener("keydown", (event) => this.#down(event));
  }

  /** How the key of a command is written: "M", or "Shift+M" where a label has the hotkey m. */
  nameOf(letter) {
    const taken = this.hotkeys().has(letter);
    return taken ? `Shift+${letter.toUpperCase()}` : letter.toUpperCase();
  }

  #down(event) {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const { target } = event;
    if (target.closest(TYPED)) {
      if (event.key === "Escape") this.#leave(target);
      return;
    }
    if (byId("view-labels").hidden) {
      if (event.key === "?") this.#do(event, this.act.help);
      return;
    }
    if ((event.ctrlKey || event.metaKey) && !event.altKey) this.#control(event);
    else if (!event.altKey && !event.ctrlKey && !event.metaKey) this.#plain(event);
  }

  #leave(target) {
    target.blur();
    this.mosaic.box.focus({ preventScroll: true });
  }

  #control(event) {
    const key = event.key.toLowerCase();
    if (event.repeat && key === "enter") return;
    if (key === "z" && !event.shiftKey) this.#do(event, this.act.undo);
    else if (key === "a") this.#do(event, this.act.selectInView);
    else if (key === "enter") this.#do(event, this.act.open);
  }

  #do(event, run, ...values) {
    event.preventDefault();
    run(...values);
  }

  #plain(event) {
    const { key, shiftKey, target } = event;
    const onButton = target.closest("button, a, summary, [role=tab]");
    // A key that is held down goes on moving, but judges once.
    if (event.repeat && !(key in ARROWS) && !key.startsWith("Page")) return event.preventDefault();
    if (key in ARROWS) {
      if (target.closest("[role=tablist], #zoom")) return undefined;
      return this.#do(event, () => this.selection.step(ARROWS[key], { extend: shiftKey }));
    }
    if (key === "Enter" && !onButton) return this.#do(event, this.act.accept);
    if (key === " " && !onButton) return this.#do(event, this.act.toggle);
    if (key === "Escape") return this.#do(event, this.act.escape);
    if (key === "PageDown" || key === "PageUp") {
      return this.#do(event, this.act.turn, key === "PageDown" ? 1 : -1);
    }
    if (key === "Home" || key === "End") return this.#do(event, this.act.edge, key === "Home");
    if (key === "?") return this.#do(event, this.act.help);
    if (key === "/") return this.#do(event, () => this.typeahead.open());
    if (key === "]" || key === "[") return this.#do(event, this.act.label, key === "]" ? 1 : -1);
    if (key === "+" || key === "=" || key === "-") {
      return this.#do(event, this.act.zoom, key === "-" ? -0.25 : 0.25);
    }
    if (key.length === 1 && /[\p{L}\p{N}]/u.test(key)) return this.#letter(event);
    return undefined;
  }

  #letter(event) {
    const letter = event.key.toLowerCase();
    const command = this.commands[letter];
    const hotkeys = this.hotkeys();
    if (event.shiftKey && command) return this.#do(event, command.run);
    if (this.selection.size && hotkeys.has(letter)) {
      return this.#do(event, this.act.assign, hotkeys.get(letter));
    }
    if (command && !hotkeys.has(letter)) return this.#do(event, command.run);
    return this.#do(event, () => this.typeahead.open(event.key));
  }
}
