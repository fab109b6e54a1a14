// Files that jobs left: when, how large, to download, to delete.

import { address, deleteAt } from "./api.js";
import { announce, make } from "./dom.js";

export const moment = (iso) => new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

export function size(bytes) {
  const step = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  return `${(bytes / 1000 ** step).toFixed(step && bytes / 1000 ** step < 10 ? 1 : 0)} ${UNITS[step]}`;
}

export const fileAddress = (kind, kept, name) =>
  address(`data/${kind}/${encodeURIComponent(kept.id)}/files/${encodeURIComponent(name)}`);

export function download(kind, kept, name, words = name) {
  return make("a", { href: fileAddress(kind, kept, name), download: name }, words);
}

export function deleteButton(kind, kept, what, changed) {
  const remove = async () => {
    if (!confirm(`Delete ${what}? The files are removed from the server.`)) return;
    try {
      await deleteAt(`data/${kind}/${encodeURIComponent(kept.id)}`);
      announce("Deleted.");
    } catch (error) {
      announce(error.message, { tone: "bad" });
    }
    await changed();
  };
  return make("button", { type: "button", onclick: remove }, "Delete");
}
