// The page: one task, watched by two clients side by side.
//
// - `Streaming` (left) is `follow()` of bridge.js; all it does here is to show the views.
// - `Legacy` (right) is a client as it was before the bridge: it asks for the status every two seconds.
// - Both show on a `Panel`. A panel is painted at most once per animation frame, with the latest state.
// - Whatever comes from a task is set as text, never as HTML.
// - What only `bridge demo` has (tasks to start, a worker to kill) appears where `page.json` tells of it.
//
// All addresses are relative to this file, so the page works below any path. `/?task=job-42#ticket=…` brings
// a ticket along, for gateways that ask for one.

import { Session, follow } from "./bridge.js";

const TICKET = takeTicket();
const CREDENTIALS = TICKET ? { authorization: `Bearer ${TICKET}` } : {};
const POLL_MS = 2000;
const UNKNOWN_MS = 300;
const BLOCK = 4096;
const LOG_LINES = 100;
const ENDS = new Set(["succeeded", "failed", "cancelled"]);
const WAYS = { eventsource: "EventSource", fetch: "fetch stream", long_poll: "long polls", poll: "polls" };

const $ = (selector, root = document) => root.querySelector(selector);
const url = (path) => new URL(path, import.meta.url);
const of = (id, what) => `tasks/${encodeURIComponent(id)}${what}`;
const count = new Intl.NumberFormat("en-US");
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 99_950 ? 2 : 0)} s`;
const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

/** Whether somebody has heard of the task that this view shows. */
const known = (view) => Boolean(view && view.position !== "0-0");

/** A ticket that came in the address. It is taken out of it at once, before it gets into a history or a picture. */
function takeTicket() {
  const query = new URLSearchParams(location.search);
  const hash = new URLSearchParams(location.hash.slice(1));
  const found = hash.get("ticket") ?? query.get("ticket");
  if (found === null) return undefined;
  query.delete("ticket");
  hash.delete("ticket");
  const rest = [["?", String(query)], ["#", String(hash)]].filter(([, part]) => part);
  history.replaceState(history.state, "", location.pathname + rest.flat().join(""));
  return found || undefined;
}

function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Set a text only where it changes: a screen reader and a selection notice every change. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A disabled button would lose the keyboard's focus; this one stays where it is and does nothing. */
function enable(button, yes) {
  button.setAttribute("aria-disabled", String(!yes));
}

/** Text that mostly grows, in blocks that end with a line: what is new lays out the last block only. */
class Growing {
  #root;
  #text = "";

  constructor(root) {
    this.#root = root;
  }

  show(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) {
      this.#root.replaceChildren();
      this.#text = "";
    }
    let rest = text.slice(this.#text.length);
    this.#text = text;
    while (rest) {
      const last = this.#root.lastElementChild;
      const open = last && !(last.textContent.length >= BLOCK && last.textContent.endsWith("\n"));
      const block = open ? last : this.#root.appendChild(element("div"));
      const line = rest.indexOf("\n", Math.max(0, BLOCK - block.textContent.length));
      const piece = line < 0 ? rest : rest.slice(0, line + 1);
      if (block.firstChild) block.firstChild.appendData(piece);
      else block.append(piece);
      rest = rest.slice(piece.length);
    }
  }
}

/** What one client has seen, on the screen. */
class Panel {
  #root;
  #box;
  #text;
  #state = {};
  #due = 0;
  #pinned = true;

  constructor(root, name) {
    this.#root = root;
    root.append($("#client").content.cloneNode(true));
    this.#box = $(".box", root);
    this.#box.setAttribute("aria-label", `Text, ${name}`);
    this.#text = new Growing($(".text", root));
    // Who is at the end stays at the end; who has scrolled up is left alone.
    this.#box.addEventListener("scroll", () => {
      this.#pinned = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < 8;
    });
  }

  /** Change what is shown; it is painted with the next frame. */
  set(changes) {
    Object.assign(this.#state, changes);
    this.#due ||= requestAnimationFrame(() => {
      this.#due = 0;
      this.#paint();
    });
  }

  reset() {
    this.#state = {};
    this.#pinned = true;
    this.set({});
  }

  #paint() {
    const { view, badge, note, bad, first, requests, characters, dot, link } = this.#state;
    const state = badge ?? view?.state ?? "";
    const label = $(".badge", this.#root);
    say(label, state);
    label.className = `badge ${state}`;
    say($(".first", this.#root), first ?? "–");
    say($(".requests", this.#root), requests === undefined ? "–" : count.format(requests));
    say($(".characters", this.#root), characters === undefined ? "–" : count.format(characters));
    const progress = view?.progress ?? null;
    $("progress", this.#root).value = progress ?? 0;
    say($(".percent", this.#root), progress === null ? "" : `${Math.round(progress * 100)} %`);
    say($(".message", this.#root), view?.message ?? "");
    this.#text.show(view?.text ?? "");
    const words = $(".note", this.#root);
    say(words, note ?? ending(view));
    words.classList.toggle("bad", bad ?? view?.state === "failed");
    $(".dot", this.#root).className = `dot ${dot ?? ""}`;
    say($(".said", this.#root), link ?? "");
    this.#paintMore(view);
    if (this.#pinned) this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** The rest of the view: other fields of text, named values, what the end carries. */
  #paintMore(view) {
    // Names are the task's own, "__proto__" and all: pairs, not an object's members.
    const parts = Object.entries(view?.fields ?? {});
    const values = Object.entries(view?.data ?? {});
    for (const name of ["result", "usage"]) if (view?.[name] != null) values.push([name, view[name]]);
    for (const [name, value] of values) parts.push([name, JSON.stringify(value, null, 1)]);
    say($(".more .names", this.#root), parts.map(([name]) => name).join(", ") || "none yet");
    const list = $(".more dl", this.#root);
    parts.forEach(([name, text], index) => {
      say(list.children[2 * index] ?? list.appendChild(element("dt")), name);
      say(list.children[2 * index + 1] ?? list.appendChild(element("dd")), text);
    });
    while (list.children.length > 2 * parts.length) list.lastChild.remove();
  }
}

/** The sentence below a text that is whole, or as whole as it will be. */
function ending(view) {
  if (!view) return "";
  if (!ENDS.has(view.state)) return view.text ? "" : "No text yet.";
  const cut = view.truncated ? " The text was cut: it became too large." : "";
  if (view.state === "cancelled") return view.text ? `Stopped. What was written is kept.${cut}` : "Stopped.";
  if (view.state === "succeeded") return cut.trim();
  return `Failed (${view.error?.code ?? "no code"}): ${view.error?.message ?? ""}${cut}`;
}

/** What happened to the left side's connection, with the seconds since the task was opened. */
class Log {
  #list;
  #count;
  #lines = 0;
  #begun = 0;

  constructor(root) {
    root.append($("#history").content.cloneNode(true));
    this.#list = $(".log ol", root);
    this.#count = $(".log .count", root);
  }

  begin(clock) {
    this.#begun = clock;
    this.#lines = 0;
    this.#list.replaceChildren();
    say(this.#count, "");
  }

  add(text) {
    const line = element("li");
    const time = `+${seconds(performance.now() - this.#begun)}`;
    line.append(element("time", "", time), element("span", "", text));
    this.#list.append(line);
    while (this.#list.children.length > LOG_LINES) this.#list.firstChild.remove();
    this.#list.scrollTop = this.#list.scrollHeight;
    say(this.#count, String(++this.#lines));
  }
}

/** The left side: `follow()`. After a retry it follows the task's new run with what it has counted so far. */
class Streaming {
  #task;
  #panel;
  #log;
  #clock;
  #changed;
  #before = { requests: 0, characters: 0 };
  #opened = 0;
  #link = "";
  #told = {};
  view = null;
  first;

  constructor(taskId, panel, log, clock, changed) {
    Object.assign(this, { taskId });
    this.#panel = panel;
    this.#log = log;
    this.#clock = clock;
    this.#changed = changed;
  }

  /** Follow to the end. Resolves with the last view, or null when it can't be followed. */
  async run() {
    this.#opened = 0;
    let task;
    try {
      task = follow(this.taskId, {
        ticket: TICKET,
        onView: (view) => this.#task === task && this.#show(view),
        onConnection: (connection) => this.#task === task && this.#connection(connection),
      });
      this.#task = task;
      const view = await task.done;
      if (this.#task !== task) return null;
      this.#show(view);
      return view;
    } catch (error) {
      if (this.#task !== task) return null;
      this.#log.add(`given up: ${error.message}`);
      this.#panel.set({ note: error.message, bad: true, dot: "off", link: "Given up" });
      return null;
    } finally {
      this.#before = this.numbers;
      if (this.#task === task) this.#task = undefined;
      this.#changed();
    }
  }

  close() {
    const task = this.#task;
    this.#task = undefined;
    task?.close();
  }

  get live() {
    return this.#task !== undefined && this.#link === "open";
  }

  get numbers() {
    const { requests = 0, characters = 0 } = this.#task?.stats ?? {};
    return { requests: this.#before.requests + requests, characters: this.#before.characters + characters };
  }

  #show(view) {
    // Following a retry begins with nothing; until something comes, what was seen last stays.
    if (!known(view)) return;
    this.view = view;
    if (view.text && this.first === undefined) this.first = performance.now() - this.#clock;
    this.#note(view);
    const words = { badge: undefined, note: undefined, bad: undefined };
    this.#panel.set({ ...words, view, ...this.numbers });
    this.#changed();
  }

  /** Say that nothing came, once it would have. */
  #unknown() {
    if (this.view || !this.#task) return;
    this.#panel.set({
      badge: "waiting",
      note: "Nobody has heard of this task yet. The stream stays open, and shows it as soon as it begins.",
    });
  }

  /** Log what changed beside the text. */
  #note(view) {
    const { attempt = 0, cancel = false, state = "" } = this.#told;
    if (view.attempt > attempt && attempt > 0) this.#log.add(`attempt ${view.attempt}: the text begins anew`);
    if (view.cancel_requested && !cancel) this.#log.add("asked to stop");
    if (ENDS.has(view.state) && view.state !== state) {
      this.#log.add(`end: ${view.state}${view.error ? ` (${view.error.code})` : ""}, at ${view.position}`);
    }
    this.#told = { attempt: view.attempt, cancel: view.cancel_requested, state: view.state };
  }

  #connection({ state, way, reason, retryInSeconds }) {
    const by = WAYS[way] ?? way;
    this.#link = state;
    if (state === "open") {
      const position = known(this.view) ? `, behind ${this.view.position}` : "";
      this.#log.add(this.#opened++ ? `resumed by ${by}${position}` : `connected by ${by}`);
      this.#panel.set({ dot: "on", link: `Connected by ${by}` });
      setTimeout(() => this.#unknown(), UNKNOWN_MS);
    } else if (state === "connecting") {
      this.#panel.set({ dot: "try", link: "Connecting …" });
    } else if (state === "waiting") {
      const next = retryInSeconds == null ? "" : `, again in ${retryInSeconds.toFixed(1)} s`;
      this.#log.add(`dropped: ${reason ?? "the connection broke"}${next}`);
      this.#panel.set({ dot: "off", link: `Away${next}: ${reason ?? "the connection broke"}` });
    } else {
      this.#panel.set({ dot: "", link: "Closed: the task has ended, there is nothing more to come" });
    }
    this.#panel.set(this.numbers);
    this.#changed();
  }
}

/** The right side, with all of a client's code from before: ask, show, ask again. */
class Legacy {
  #taskId;
  #panel;
  #clock;
  #changed;
  #timer;
  #asking = false;
  #numbers = { requests: 0, characters: 0 };
  view = null;
  first;
  /** Whether there was text at the first answer; undefined before it. */
  early;
  /** Whether the latest request came to nothing. */
  away = false;

  constructor(taskId, panel, clock, changed) {
    this.#taskId = taskId;
    this.#panel = panel;
    this.#clock = clock;
    this.#changed = changed;
  }

  run() {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#poll(), POLL_MS);
    this.#poll();
  }

  close() {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #poll() {
    if (this.#asking) return;
    this.#asking = true;
    const round = this.#timer;
    this.#numbers.requests++;
    try {
      const answer = await fetch(url(of(this.#taskId, "/status")), { cache: "no-store", headers: CREDENTIALS });
      const text = await answer.text();
      this.#numbers.characters += text.length;
      // Closed meanwhile, or begun anew: what was asked before a retry would tell of its end as if it were ours.
      if (this.#timer !== round) return;
      if (answer.ok) this.#show(JSON.parse(text));
      else this.#trouble(`The answer is ${answer.status}`, answer.status === 404);
    } catch {
      if (this.#timer === round) this.#trouble("No answer");
    } finally {
      this.#asking = false;
    }
  }

  #show(view) {
    this.view = view;
    this.away = false;
    this.early ??= Boolean(view.text);
    if (view.text && this.first === undefined) this.first = performance.now() - this.#clock;
    const ended = ENDS.has(view.state);
    if (ended) this.close();
    const link = ended
      ? { dot: "", link: "Stopped asking: the task has ended" }
      : { dot: "on", link: "Asks again every 2 s" };
    const words = { badge: undefined, note: undefined };
    this.#panel.set({ ...words, view, ...this.#numbers, ...link });
    this.#changed();
  }

  #trouble(what, unknown = false) {
    const words = unknown && !this.view && { badge: "waiting", note: "Nobody has heard of this task yet." };
    const link = { dot: unknown ? "on" : "off", link: `${what}. Asks again every 2 s` };
    this.away = !unknown;
    if (unknown) this.early ??= false;
    this.#panel.set({ ...words, ...this.#numbers, ...link });
    this.#changed();
  }
}

const panels = { left: new Panel($("#stream"), "streaming"), right: new Panel($("#legacy"), "legacy") };
const log = new Log($("#stream"));
let shown = null;
let demo = null;

/** Show a task on both sides: one that was started here, at `clock`, or any from now on. */
function show(taskId, started) {
  const clock = started ?? performance.now();
  shown?.abort.abort();
  shown?.left.close();
  shown?.right.close();
  panels.left.reset();
  panels.right.reset();
  log.begin(clock);
  notice("");
  $("#task").value = taskId;
  const wrong = taskId && whyNot(taskId);
  const good = taskId && !wrong;
  document.title = good ? `${taskId} · bridge` : "bridge";
  shown = null;
  if (good) {
    const one = (shown = {
      taskId,
      started,
      abort: new AbortController(),
      left: new Streaming(taskId, panels.left, log, clock, refresh),
      right: new Legacy(taskId, panels.right, clock, refresh),
      job: null,
    });
    lookAtJob(one);
    watch(one);
    one.right.run();
  } else {
    const hint = demo ? "Start one above, or open any by its id." : "Open one by its id.";
    notice(wrong ? `This can’t be opened: ${wrong}.` : hint, Boolean(wrong));
    panels.left.set({ note: "Text appears here while it is written." });
    panels.right.set({ note: "Text appears here whenever it is asked for." });
  }
  refresh();
}

/** Why this can't be a task's id, or null. The rule is the module's. */
function whyNot(taskId) {
  try {
    new Session(taskId);
    return null;
  } catch (error) {
    return error.message;
  }
}

/** Follow a task on the left, also when the demonstration goes on with it after its end. */
async function watch(one) {
  while (shown === one) {
    const view = await one.left.run();
    if (shown !== one || !view) return;
    notice("");
    if (!(await goesOn(one, view))) return;
    log.add(`the demonstration ${view.error?.code === "worker_lost" ? "retries it" : "begins it anew"}`);
    notice("");
    one.right.run();
  }
}

/** Wait until a task that has ended has begun anew; false when nobody will see to that. */
async function goesOn(one, view) {
  const { signal } = one.abort;
  const lost = view.error?.code === "worker_lost";
  while (!signal.aborted) {
    await lookAtJob(one);
    if (!one.job) return false;
    const status = await ask(of(one.taskId, `/status?after=${view.position}`), signal);
    if (status.ok && (status.body.attempt > view.attempt || !ENDS.has(status.body.state))) return true;
    const endless = one.job.kind === "endless";
    if (lost && view.cancel_requested && !endless) {
      notice("Its worker is lost. It had been asked to stop, so it isn’t retried.");
      return false;
    }
    if (one.job.state === "over") {
      notice("");
      return false;
    }
    if (lost) notice(`Its worker is lost. The demonstration retries it as attempt ${view.attempt + 1} …`);
    else if (endless) notice("The demonstration begins it anew in a moment …");
    await pause(500, signal);
  }
  return false;
}

/** Ask the demonstration whether it has a worker for this task. */
async function lookAtJob(one) {
  if (!demo) return;
  const answer = await ask(`demo/${of(one.taskId, "")}`, one.abort.signal);
  // No content: it was started elsewhere.
  if (answer.ok) one.job = answer.body;
  refresh();
}

let due = 0;
let spoken = "";

/** Bring buttons and sentences up to date with both sides, once per frame. */
function refresh() {
  due ||= requestAnimationFrame(() => {
    due = 0;
    const view = shown?.left.view;
    const ended = Boolean(view && ENDS.has(view.state));
    $(".which").classList.toggle("open", Boolean(shown));
    say($("#which"), shown ? shown.taskId : "No task is open");
    say($("#attempt"), view?.attempt > 1 ? `attempt ${view.attempt}` : "");
    const reachable = known(view) && !ended && !shown.right.away;
    enable($("#stop"), reachable && !view.cancel_requested);
    enable($("#drop"), Boolean(shown?.left.live) && !shown.right.away);
    enable($("#kill"), reachable && Boolean(shown.job));
    panels.left.set({ first: firstText(shown?.left) });
    panels.right.set({ first: firstText(shown?.right) });
    verdict(view, ended);
    const state = shown && known(view) ? `Task ${view.state}` : "";
    if (state !== spoken) say($("#spoken"), (spoken = state));
  });
}

/** How long the first text took. What was there before we came took no time of ours. */
function firstText(side) {
  if (side?.first === undefined) return undefined;
  if (shown.started !== undefined || shown.right.early === false) return seconds(side.first);
  return shown.right.early ? "replayed" : undefined;
}

/** The last word: that both clients have the same. */
function verdict(view, ended) {
  const other = shown?.right.view;
  const both = Boolean(ended && other && ENDS.has(other.state) && other.position === view.position);
  const same = both && other.text === view.text;
  const agreed = () =>
    view.text
      ? `Both ended with the same ${count.format(view.text.length)} characters of text.`
      : "Both ended, and without any text.";
  say($("#verdict"), !both ? "" : same ? agreed() : "The two texts differ. That is a bug.");
  $("#verdict").classList.toggle("good", same && view.state === "succeeded");
  $("#verdict").classList.toggle("bad", both && !same);
}

function notice(text, bad = false) {
  say($("#notice"), text);
  $("#notice").classList.toggle("bad", bad);
}

/** One request: `{ok, status, body}`, and in `said` what people should know if it was refused. */
async function request(path, { headers, ...options } = {}) {
  try {
    const all = { ...CREDENTIALS, ...headers };
    const answer = await fetch(url(path), { cache: "no-store", headers: all, ...options });
    const body = await answer.json().catch(() => null);
    const said = body?.error?.message ?? `The gateway answered ${answer.status}.`;
    return { ok: answer.ok, status: answer.status, body, said };
  } catch {
    return { ok: false, status: 0, body: null, said: "The gateway doesn’t answer." };
  }
}

const ask = (path, signal) => request(path, { signal });
const JSON_TYPE = { "content-type": "application/json" };
const post = (path, body = {}) => request(path, { method: "POST", headers: JSON_TYPE, body: JSON.stringify(body) });

/** What a button does to the task that is shown; `done` says what came of it. */
function act(button, path, done) {
  $(button).addEventListener("click", async (event) => {
    const target = shown;
    if (!target || event.currentTarget.getAttribute("aria-disabled") === "true") return;
    const answer = await post(path(target.taskId));
    // What an action does may be over, and told, before its answer is here.
    if (shown !== target || (answer.ok && ENDS.has(target.left.view?.state))) return;
    notice(answer.ok ? done(answer.body) : answer.said, !answer.ok);
  });
}

act("#stop", (id) => of(id, "/cancel"), () => "The worker is asked to stop.");
act("#drop", (id) => `demo/${of(id, "/drop")}`, ({ dropped }) =>
  dropped ? "The gateway has cut the connection." : "There is no stream to cut now.");
act("#kill", (id) => `demo/${of(id, "/kill")}`, () =>
  `The worker is dead. Its lease runs out within ${demo.lease_seconds} s; then the task ends.`);

/** Go to a task's address, as a link would. */
function go(taskId, clock) {
  history.pushState(null, "", `?task=${encodeURIComponent(taskId)}`);
  show(taskId, clock);
}

const asked = () => new URLSearchParams(location.search).get("task") ?? "";

$("#open").addEventListener("submit", (event) => {
  event.preventDefault();
  go($("#task").value.trim());
});
addEventListener("popstate", () => show(asked()));

/** Offer what the demonstration can start. */
function offer(kinds) {
  for (const kind of kinds) {
    const button = element("button");
    button.type = "button";
    button.dataset.kind = kind.name;
    button.title = kind.about;
    button.append(element("strong", "", kind.title), element("small", "", kind.about));
    button.addEventListener("click", async () => {
      const clock = performance.now();
      const answer = await post("demo/tasks", { kind: kind.name });
      if (answer.ok) go(answer.body.id, clock);
      else notice(answer.said, true);
    });
    $("#kinds").append(button);
  }
  for (const part of ["#start", "#drop", "#kill"]) $(part).hidden = false;
}

demo = (await ask("page.json")).body?.demo ?? null;
if (demo) offer(demo.kinds);
// Only now is it known what there is to see.
$("main").hidden = false;
show(asked());
