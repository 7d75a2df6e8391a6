// Requests to the application that this page came from. All addresses are relative to this file, so the page
// works below any path.

const ANSWER_MS = 20_000;

/** What the server didn't do, in words for people. `status` is 0 when no answer came at all. */
export class Refusal extends Error {
  constructor(status, body, retryAfter) {
    const { code = "unknown", message } = body?.error ?? {};
    const again = retryAfter > 0 ? ` Try again in ${retryAfter} s.` : "";
    super((message ?? `The server answered ${status}.`) + again);
    this.status = status;
    this.code = code;
  }
}

const NOBODY = { error: { code: "unreachable", message: "The server can’t be reached." } };

/** One request and its answer, whatever it says: `{status, body, retryAfter}`. */
export async function request(method, path, body, headers = {}) {
  const options = { method, headers: { accept: "application/json", ...headers }, cache: "no-store" };
  options.signal = AbortSignal.timeout(ANSWER_MS);
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  try {
    const answer = await fetch(new URL(path, import.meta.url), options);
    const text = await answer.text();
    const retryAfter = Number(answer.headers.get("retry-after"));
    return { status: answer.status, body: parsed(text), retryAfter };
  } catch {
    return { status: 0, body: NOBODY, retryAfter: 0 };
  }
}

/** The body of a good answer. Throws a Refusal for any other. */
async function ask(...what) {
  const { status, body, retryAfter } = await request(...what);
  if (status < 200 || status > 299) throw new Refusal(status, body, retryAfter);
  return body;
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}, headers) => ask("POST", path, body, headers);
export const patch = (path, body) => ask("PATCH", path, body);

/** What a proxy says in place of the application isn't JSON. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
