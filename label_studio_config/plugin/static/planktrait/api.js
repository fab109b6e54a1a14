// Calls to our API: JSON in and out, errors with Label Studio's own reason.

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";

export const PROJECT = Number(meta("planktrait-project"));
const BASE = `/api/planktrait/projects/${PROJECT}/`;
const PATIENCE_MS = 30_000;

/** The server refused, or did not answer (`status` 0). */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** `{a: 1, b: [2, 3], c: ""}` → `a=1&b=2&b=3`: what is empty is left out, but for `keepEmpty`. */
export function toQuery(values, keepEmpty = []) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (Array.isArray(value)) value.forEach((one) => query.append(name, one));
    else if (value != null && (value !== "" || keepEmpty.includes(name))) query.set(name, value);
  }
  return query;
}

export function address(path, values = {}) {
  const query = toQuery(values, ["label"]).toString();
  return BASE + path + (query ? `?${query}` : "");
}

async function call(path, { values, signal, patience_ms = PATIENCE_MS, ...options } = {}) {
  let response;
  const patience = AbortSignal.timeout(patience_ms);
  try {
    response = await fetch(address(path, values), {
      credentials: "same-origin",
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
      ...options,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (!response.ok) throw new ApiError(response.status, await reason(response));
  return response;
}

async function reason(response) {
  if ([401, 403].includes(response.status)) return "You are not logged in any more, or may not do this.";
  try {
    const answer = await response.json();
    const errors = answer.validation_errors;
    const said = errors?.non_field_errors?.join(" ") ?? errors ?? answer.detail ?? answer;
    return typeof said === "string" ? said : JSON.stringify(said).slice(0, 300);
  } catch {
    return `The server answered ${response.status}.`;
  }
}

export async function getJson(path, values, signal) {
  return (await call(path, { values, signal })).json();
}

/** What a whole project answers may take a while. */
export async function getBytes(path, values) {
  const response = await call(path, { values, patience_ms: 4 * PATIENCE_MS });
  try {
    return await response.arrayBuffer();
  } catch {
    throw new ApiError(0, "The answer did not come to its end.");
  }
}

export async function postJson(path, body = {}) {
  const response = await call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": meta("csrf-token") },
    body: JSON.stringify(body),
    keepalive: JSON.stringify(body).length < 60_000,
  });
  return response.json();
}

export async function postFile(path, name, file, values = {}) {
  const body = new FormData();
  body.append(name, file);
  for (const [key, value] of Object.entries(values)) body.append(key, value);
  const headers = { "X-CSRFToken": meta("csrf-token") };
  return (await call(path, { method: "POST", headers, body })).json();
}

export async function deleteAt(path) {
  await call(path, { method: "DELETE", headers: { "X-CSRFToken": meta("csrf-token") } });
}
