// Follows a task of a bridge gateway: one ES module for browsers and Node ≥ 20, without dependencies.
//
//     import { follow } from "/bridge.js";
//     const task = follow("job-42", { onView: (view) => show(view.text, view.progress) });
//     const last = await task.done;
//
// Layers, from the bottom: Decoder (bytes → frames), View (events → the JSON of /status), Session (what to
// do next; no I/O, no timers), Following (fetch, EventSource, timers, callbacks). The first three are the
// twins of bridge/sse.py, view.py and client/session.py, and the same cases are run against both.
//
// Rules
// -----
// 1. Nothing twice. Within an epoch an event at or before the view's position was seen and is dropped.
// 2. A reset is believed, also one of an older epoch: it only counts as seen when it is a numbered event of
//    our own epoch. The `end` of a forgotten task has the id `0-1` and counts from anywhere.
// 3. Resume from what was complete: an event that was cut off is forgotten with its connection.
// 4. Come back politely: first as the server asked (`retry:`), then twice as long each time, jittered.
// 5. Give up only when there is nobody: a gateway that was never reached fails at once, one that was reached,
//    or that this module came from, may be away for `patienceSeconds`, one that answers is waited for as long
//    as it takes, also while it says of itself that it can't serve now.
// 6. Three ways, the best that gets through: a stream, long polls, polls. A stream that is kept back by
//    somebody in between shows nothing at all, not even the `retry:` that the gateway begins with. The first
//    long poll of a row doesn't wait: it brings what there is, and tells that polls get through.
// 7. And back: from polls a stream is tried again after a minute, then ever more rarely.
// 8. A poll is folded like a stream, and the view is the same. Who comes with a position knows no more of the
//    task than that, so one poll shows all the rest first.
// 9. EventSource shows neither comments nor its own reconnects, so instead of waiting for heartbeats one
//    asks now and then whether the log is ahead of what the stream has brought. If so the stream is mute: one
//    that had brought something may just be dead, and is opened anew; one that hadn't is given up (rule 6).
//    When two looks in a row fail, it is no longer said to be open.
// 10. A view that was handed out is never changed. Whoever is slow skips views, but never the last.
// 11. Names that come from the task (fields, data) never become keys by assignment: "__proto__" is a name
//    like others. Nothing here touches a document, and text stays text.
// 12. Browsers keep six connections to a host that speaks HTTP/1.1, for all tabs together: were they all held,
//    not even a page would load any more. So whatever holds one for long takes a seat first, of which there
//    are four. Without one there are only short polls, until a seat is free. Pages of plain http:// (but
//    localhost) can't count together, so each counts for itself.

// --- Errors ------------------------------------------------------------------------------------------------

/** What went wrong with a gateway; bridge.d.ts lists the codes. Only `unavailable` may pass by itself. */
export class BridgeError extends Error {
  constructor(code, message, { status = null, kind = "broken", cause } = {}) {
    super(message, { cause });
    this.name = "BridgeError";
    this.code = code;
    this.status = status;
    this.kind = kind;
  }
}

const unavailable = (message, more) => new BridgeError("unavailable", message, more);
const badAnswer = (message, more) => new BridgeError("bad_answer", `${message}: is this a gateway?`, more);
const invalid = (message) => new BridgeError("invalid_input", message);

// --- Server-sent events: the HTML standard's 9.2.5 and 9.2.6 -----------------------------------------------

const STREAM_TYPE = "text/event-stream";
const MAX_BYTES = 32 * 1024 * 1024;
const LONGEST_RETRY_MS = 1e15;
const [CR, LF] = [13, 10];

/** Turns the bytes of one event stream, cut anywhere, into frames `{event, data, id}`.
 *
 * A line ends with CR, LF or CRLF and with nothing else; to decode each line gives the same as to decode the
 * stream. `lastEventId` is that of the last blank line; `retryMs` what the server asked for, or null. A line
 * or an event of more than `maxBytes` is an error, after which the decoder is of no use.
 */
export class Decoder {
  lastEventId;
  retryMs = null;
  #maxBytes;
  #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  #parts = [];
  #partBytes = 0;
  #skipLf = false;
  #firstLine = true;
  #id;
  #event = "";
  #data = [];
  #dataBytes = 0;

  constructor({ lastEventId = "", maxBytes = MAX_BYTES } = {}) {
    this.lastEventId = this.#id = lastEventId;
    this.#maxBytes = maxBytes;
  }

  feed(bytes) {
    const frames = [];
    let begin = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte !== LF && byte !== CR) continue;
      // A line that ends in CR is complete at once; the LF that may follow belongs to it.
      const half = byte === LF && at === begin && this.#skipLf;
      if (!half) this.#takeLine(this.#lineOf(bytes.subarray(begin, at)), frames);
      this.#skipLf = byte === CR;
      begin = at + 1;
    }
    if (begin < bytes.length) {
      this.#skipLf = false;
      // A copy: the caller may use its buffer again.
      this.#parts.push(bytes.slice(begin));
      this.#partBytes += bytes.length - begin;
      this.#check(this.#partBytes, "a line");
    }
    return frames;
  }

  #lineOf(rest) {
    if (!this.#parts.length) return rest;
    const line = new Uint8Array(this.#partBytes + rest.length);
    let at = 0;
    for (const part of [...this.#parts, rest]) {
      line.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#partBytes = 0;
    return line;
  }

  #takeLine(bytes, frames) {
    this.#check(bytes.length, "a line");
    let line = this.#utf8.decode(bytes);
    // "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present."
    const bom = this.#firstLine && line.startsWith("\uFEFF");
    if (bom) line = line.slice(1);
    this.#firstLine = false;
    if (line === "") {
      this.#dispatch(frames);
      return;
    }
    // Without a colon the whole line is the name; with a colon first it is a comment: the name is empty.
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") {
      this.#dataBytes += bytes.length - (bom ? 3 : 0) + 1;
      this.#check(this.#dataBytes, "an event");
      this.#data.push(value);
    } else if (name === "event") {
      this.#event = value;
    } else if (name === "id" && !value.includes("\0")) {
      this.#id = value;
    } else if (name === "retry" && /^[0-9]+$/.test(value)) {
      this.retryMs = Math.min(Number(value), LONGEST_RETRY_MS);
    }
  }

  #dispatch(frames) {
    // "Set the last event ID string of the event source to the value of the last event ID buffer": also when
    // there is no data and so no event.
    this.lastEventId = this.#id;
    if (this.#data.length) {
      frames.push({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#id });
    }
    this.#data = [];
    this.#dataBytes = 0;
    this.#event = "";
  }

  #check(size, what) {
    if (size > this.#maxBytes) {
      const limit = `${what} of the event stream is larger than ${this.#maxBytes} bytes`;
      throw new BridgeError("too_large", `${limit}: is it an event stream?`);
    }
  }
}

// --- The vocabulary ----------------------------------------------------------------------------------------

const TASK_ID = /^[A-Za-z0-9._:~-]{1,200}$/;
const MAIN_FIELD = "text";
const TERMINAL = ["succeeded", "failed", "cancelled"];
const LATEST_TIME = 253_402_300_799_999; // the end of the year 9999

const isText = (value) => typeof value === "string";
const isFraction = (value) => typeof value === "number" && value >= 0 && value <= 1;
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// Each takes a member's value and returns what it means, or undefined when that makes no sense.
const text = (value) => (isText(value) ? value : undefined);
const count = (value = 0) => (isCount(value) ? value : undefined);
const flag = (value = false) => (typeof value === "boolean" ? value : undefined);
const any = (value) => value;
const oneOf = (...known) => (value) => (known.includes(value) ? value : undefined);
const optional = (check) => (value) => (value == null ? null : check(value) ? value : undefined);
const allOf = (check) => (value) => {
  const members = value ?? {};
  return isObject(members) && Object.values(members).every(check) ? members : undefined;
};
/** Events tell the time in ms since 1970, views in RFC 3339. */
const ms = (value) => {
  if (value == null) return null;
  return isCount(value) && value <= LATEST_TIME ? new Date(value).toISOString() : undefined;
};
const time = optional((value) => /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value) && Date.parse(value) >= 0);

const PROGRESS = { progress: optional(isFraction), message: optional(isText) };
const END = {
  state: oneOf(...TERMINAL), result: optional(() => true), usage: optional(isObject), truncated: flag,
  error: optional((value) => isObject(value) && isText(value.code) && isText(value.message)),
};
const EVENTS = new Map(Object.entries({
  state: {
    state: oneOf("queued", "running"), attempt: count, cancel_requested: flag, created_at: ms, started_at: ms,
  },
  chunk: { text, field: (value = MAIN_FIELD) => text(value) },
  progress: PROGRESS,
  data: { name: text, value: any },
  reset: { reason: text, attempt: count },
  end: { ...END, length: allOf(isCount) },
}));
const VIEW = {
  ...PROGRESS, ...END, state: oneOf("queued", "running", ...TERMINAL), attempt: count, cancel_requested: flag,
  position: (value) => parsePosition(value) ?? undefined, reset: (value) => value === true,
  text, fields: allOf(isText), data: allOf(() => true),
  created_at: time, started_at: time, updated_at: time, ended_at: time,
};

/** The kinds of event that a gateway sends, each by its name. */
export const KINDS = Object.freeze([...EVENTS.keys()]);

/** The known members of a JSON text, by what `table` says of them. */
function read(json, table, what) {
  const members = jsonObject(json);
  const entries = Object.entries(table).map(([name, meaning]) => [name, meaning(members[name])]);
  const wrong = entries.find(([, value]) => value === undefined);
  if (!wrong) return Object.fromEntries(entries);
  throw badAnswer(`the "${wrong[0]}" of ${what} makes no sense`);
}

function jsonObject(json) {
  let value = null;
  try {
    value = JSON.parse(json);
    // As escapes JSON can spell lone surrogates, and JSON.stringify spells only those so. They become U+FFFD.
    if (/\\u[dD][89a-fA-F]/.test(json)) {
      const replaced = (escape) => (/^\\ud[89a-f]/.test(escape) ? "\uFFFD" : escape);
      value = JSON.parse(JSON.stringify(value).replace(/\\(?:u....|.)/g, replaced));
    }
  } catch {
    // Told below.
  }
  if (isObject(value)) return value;
  throw badAnswer("what came is not a JSON object");
}

// Positions are two numbers: as texts, `…-9` would come after `…-10`.
const START = { epoch: 0n, seq: 0n };
const UNKNOWN_TASK_END = { epoch: 0n, seq: 1n };
const isSame = (a, b) => a.epoch === b.epoch && a.seq === b.seq;
const isLater = (a, b) => a.epoch > b.epoch || (a.epoch === b.epoch && a.seq > b.seq);
const spell = ({ epoch, seq }) => `${epoch}-${seq}`;

function parsePosition(id) {
  const match = /^(\d{1,16})-(\d{1,16})$/.exec(id);
  return match && { epoch: BigInt(match[1]), seq: BigInt(match[2]) };
}

// --- The fold ----------------------------------------------------------------------------------------------

const BLANK = {
  id: "", state: "queued", attempt: 0, position: "0-0", text: "", fields: {}, progress: null, message: null,
  data: {}, cancel_requested: false, result: null, error: null, usage: null, truncated: false,
  created_at: null, started_at: null, updated_at: null, ended_at: null,
};

/** The fold of all events up to `position`. `toJSON()` is the shape of `/status`, a new object each time. */
class View {
  position = START;
  #plain;
  #texts;
  #data;

  constructor(id) {
    this.#clear(id, 0);
  }

  #clear(id, attempt) {
    this.#plain = { ...BLANK, id, attempt };
    this.#texts = new Map();
    this.#data = new Map();
  }

  apply(position, kind, { at = null, length, ...members }) {
    if (kind === "chunk") {
      this.#append(members.field, members.text);
    } else if (kind === "data") {
      // The latest stands last, so that the order is the same where older ones were left out.
      this.#data.delete(members.name);
      this.#data.set(members.name, members.value);
    } else if (kind === "reset") {
      this.#clear(this.#plain.id, members.attempt);
    } else {
      Object.assign(this.#plain, members);
      if (kind === "end") this.#plain.ended_at = at;
    }
    if (at !== null) this.#plain.updated_at = at;
    this.position = position;
  }

  #append(field, more) {
    this.#texts.set(field, (this.#texts.get(field) ?? "") + more);
  }

  /** Whether an answer to a poll is news. It may say `reset` of the very position it was asked about. */
  isOlderThan({ reset, position }) {
    return reset || isLater(position, this.position) || this.#isOfAnotherEpoch(position);
  }

  #isOfAnotherEpoch({ epoch }) {
    return epoch !== this.position.epoch && !isSame(this.position, START);
  }

  /** Folds the answer to a poll: all of it stands for the present, but its text for what came since. */
  merge({ reset, position, text, fields, data, ...members }) {
    if (reset || this.#isOfAnotherEpoch(position)) this.#texts.clear();
    for (const [field, more] of Object.entries({ ...fields, [MAIN_FIELD]: text })) this.#append(field, more);
    this.#data = new Map(Object.entries(data));
    Object.assign(this.#plain, members);
    this.position = position;
  }

  toJSON() {
    const others = [...this.#texts].filter(([field, text]) => text && field !== MAIN_FIELD);
    return {
      ...this.#plain,
      position: spell(this.position),
      text: this.#texts.get(MAIN_FIELD) ?? "",
      // Unlike an assignment this makes own members, also of the name "__proto__".
      fields: Object.fromEntries(others),
      data: Object.fromEntries(this.#data),
    };
  }
}

// --- When, and which way -----------------------------------------------------------------------------------

const FIRST_WAIT = 1;
const LONGEST_WAIT = 30;
const LONGEST_RETRY = 300;

/** How long to wait before the next try: counts failures in a row. `wish` is the server's, in seconds. */
class Backoff {
  wish = null;
  #jitter;
  #failures = 0;

  constructor(jitter) {
    this.#jitter = jitter;
  }

  forgive() {
    this.#failures = 0;
  }

  failed() {
    this.#failures += 1;
    const asked = this.wish ?? FIRST_WAIT;
    if (this.#failures === 1 && this.wish !== null) return asked;
    const grown = Math.max(asked, 0.05) * 2 ** Math.min(this.#failures - 1, 16);
    const wait = Math.min(grown, LONGEST_WAIT) * (0.5 + this.#jitter() / 2);
    return this.wish === null ? wait : Math.max(wait, asked);
  }
}

/** A `Retry-After` in seconds; the form with a date is for caches and counts as none, which is 0. */
const retryAfter = (header) => (/^[0-9]+$/.test(header ?? "") ? Math.min(Number(header), LONGEST_RETRY) : 0);

const STREAM_AGAIN = 60;
const LONGEST_AGAIN = 600;
const MOST_SILENT = 2;
const MOST_BROKEN = 3;

/** Which way is the way now (rules 6 and 7): "stream", "long_poll" or "poll". */
class Ways {
  way;
  #streams;
  #polls;
  #againAt = 0;
  #againIn = STREAM_AGAIN;
  #brought = false;
  #silent = 0;
  #broken = 0;

  constructor(streams) {
    this.#streams = streams;
    this.#polls = streams ? null : "long_poll";
    this.way = this.#polls ?? "stream";
  }

  /** Whether this is one stream between two polls. */
  get trial() {
    return this.way === "stream" && this.#polls !== null;
  }

  choose(now) {
    this.#brought = false;
    const polls = this.#polls !== null && (!this.#streams || now < this.#againAt);
    this.way = polls ? this.#polls : "stream";
    return this.way;
  }

  /** One poll before anything else, which decides nothing about the ways. */
  look() {
    this.way = "poll";
    return this.way;
  }

  streamBrought() {
    this.#polls = null;
    this.#brought = true;
    this.#againIn = STREAM_AGAIN;
    this.#silent = this.#broken = 0;
  }

  failed(kind, now) {
    if (this.way === "long_poll") {
      this.#polls = "poll";
    } else if (this.way === "poll") {
      this.#polls = this.#streams ? null : "long_poll";
    } else if (this.trial) {
      this.#againIn = Math.min(2 * this.#againIn, LONGEST_AGAIN);
      this.#againAt = now + this.#againIn;
    } else if (!this.#brought) {
      if (kind === "silent") this.#silent += 1;
      else if (kind !== "mute") this.#broken += 1;
      if (kind === "mute" || this.#silent === MOST_SILENT || this.#broken === MOST_BROKEN) {
        this.#polls = "long_poll";
        this.#againAt = now + this.#againIn;
        this.#silent = this.#broken = 0;
      }
    }
  }
}

// --- The session: what to do next --------------------------------------------------------------------------

const ANSWER_SECONDS = 10; // how long a poll may take, beyond its wait
const LONG_POLL_SECONDS = 25; // many proxies cut a request off at 30 s
const POLL_EVERY = 2;
const NEWS_PAUSE = 0.5; // between long polls: text comes in pieces, not in letters
const UNKNOWN_WAIT = 600;
const STEADY = 10; // a stream that lasted so long was a good one
// What a gateway that is there says of itself with a 503; a proxy says 503 too, of one that is away.
const PASSING = ["redis_away", "draining", "auth_unavailable"];
const TIMES = {
  openSeconds: 5, // how long a stream may take to bring a byte; the gateway sends its `retry:` at once
  silenceSeconds: 45, // how long it may be silent; the gateway's heartbeats come every 15 s
  patienceSeconds: 60,
  clock: () => performance.now() / 1000,
  jitter: Math.random,
};
const POLL_HEADERS = { "Cache-Control": "no-cache", Accept: "application/json" };

/** One task as followed by one reader: the view so far, and what to do next. All times are in seconds.
 *
 * Whoever does the I/O asks `next` for each request. For a stream, `answered` is told the response's head and
 * `receive` each piece of its body; for a poll, `polled` is told all at once, and `pause` says how long to
 * wait. What goes wrong, and a stream that ends before the session is `done`, goes to `failed`, which says
 * how long to wait, or throws what won't pass. With `after`, the view holds only the text after it; what it
 * has else is that of the events since, or, with `lookFirst`, what a poll before them shows. `reached` says
 * that the gateway is known to be there.
 */
export class Session {
  done = false;
  /** How much text the events of streams had, as frames. */
  characters = 0;
  #options;
  #ways;
  #backoff;
  #decoder = new Decoder();
  #pause = 0;
  #retryAfter = 0;
  #asked = 0;
  #looking;
  #waits = false;
  #onPolls = false; // whether the latest request was a poll that was answered
  #opened = null;
  #reached;
  #awaySince = null;
  #unknownSince = null;

  constructor(taskId, { after = null, lookFirst = false, streams = true, reached = false, ...options } = {}) {
    // "." and ".." are steps in a path.
    if (!isText(taskId) || !TASK_ID.test(taskId) || taskId === "." || taskId === "..") {
      throw invalid("a task id is 1-200 characters of A-Z a-z 0-9 . _ : ~ -, but not . or .. alone");
    }
    const position = after === null ? START : parsePosition(after);
    if (!position) throw invalid("a position looks like 1763650000000-17");
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...TIMES, ...Object.fromEntries(given) };
    this.view = new View(taskId);
    this.view.position = position;
    this.#looking = lookFirst && !isSame(position, START);
    this.#reached = reached;
    this.#ways = new Ways(streams);
    this.#backoff = new Backoff(this.#options.jitter);
  }

  /** The way of the latest request: "stream", "long_poll" or "poll". */
  get way() {
    return this.#ways.way;
  }

  /** Begins a request: `{way, query, headers, answerSeconds, silenceSeconds}`. */
  next() {
    const { openSeconds, silenceSeconds, clock } = this.#options;
    this.#asked = clock();
    this.#opened = null;
    this.#retryAfter = 0;
    const way = this.#looking ? this.#ways.look() : this.#ways.choose(this.#asked);
    this.#waits = way === "long_poll" && this.#onPolls;
    this.#onPolls = false;
    if (way === "stream") {
      this.#decoder = new Decoder();
      const headers = { "Cache-Control": "no-cache", Accept: STREAM_TYPE, "Accept-Encoding": "identity" };
      const { after } = this.since();
      if (after) headers["Last-Event-ID"] = after;
      return { way, query: {}, headers, answerSeconds: openSeconds, silenceSeconds };
    }
    const query = this.since("0");
    const wait = this.#waits ? LONG_POLL_SECONDS : 0;
    if (wait) query.wait = String(wait);
    const answerSeconds = wait + ANSWER_SECONDS;
    return { way, query, headers: { ...POLL_HEADERS }, answerSeconds, silenceSeconds: ANSWER_SECONDS };
  }

  /** The position as a query; `start` is that of a view without any. */
  since(start) {
    const { position } = this.view;
    const after = isSame(position, START) ? start : spell(position);
    return after === undefined ? {} : { after };
  }

  // A stream.

  /** Its head came; `body` only matters for errors. 204 means that there is nothing more. */
  answered(status, headers, body = "") {
    if (status === 204) {
      this.done = true;
      return;
    }
    this.#refuse(status, headers, body);
    const type = headers.get("content-type") ?? "";
    if (type.split(";")[0].trim().toLowerCase() !== STREAM_TYPE) {
      throw badAnswer(`the answer is ${type || "of no type"}, not an event stream`, { status });
    }
    this.opened();
  }

  /** It is open, as one knows of an EventSource. */
  opened() {
    this.#opened = this.#answeredNow();
  }

  /** Somebody is there, at this time. */
  #answeredNow() {
    this.#reached = true;
    this.#awaySince = null;
    return this.#options.clock();
  }

  /** Folds a piece of its body into the view; the events in it that are new, each with its position. */
  receive(bytes) {
    const news = this.heard(this.#decoder.feed(bytes));
    const { retryMs } = this.#decoder;
    if (retryMs !== null) this.#backoff.wish = Math.min(retryMs / 1000, LONGEST_RETRY);
    return news;
  }

  /** Likewise for frames, as an EventSource hears them. */
  heard(frames) {
    this.#answeredNow();
    const news = [];
    for (const frame of frames) {
      this.characters += `event: ${frame.event}\nid: ${frame.id}\ndata: ${frame.data}\n\n`.length;
      // Kinds that a newer gateway may send are skipped, as are unnamed events.
      if (EVENTS.has(frame.event) && !this.done) this.#take(frame, news);
    }
    if (news.length) {
      this.#backoff.forgive();
      this.#ways.streamBrought();
      this.#unknownSince = null;
    }
    return news;
  }

  #take({ event: kind, data, id }, news) {
    const position = parsePosition(id);
    if (!position) throw badAnswer(`the id "${id.slice(0, 60)}" of an event makes no sense`);
    const event = read(data, { ...EVENTS.get(kind), at: ms }, `a ${kind} event`);
    const known = this.view.position;
    const isNew =
      isLater(position, known) ||
      (kind === "reset" && (position.epoch !== known.epoch || position.seq === 0n)) ||
      (kind === "end" && isSame(position, UNKNOWN_TASK_END));
    if (!isNew) return;
    this.view.apply(position, kind, event);
    news.push({ position: spell(position), kind, event });
    this.done = kind === "end";
  }

  // A poll.

  /** A poll was answered: folds it into the view; whether that changed anything. */
  polled(status, headers, body) {
    const asked = retryAfter(headers.get("retry-after"));
    if (status !== 404) this.#refuse(status, headers, body);
    const now = this.#answeredNow();
    const looked = this.#looking;
    this.#looking = false;
    this.#onPolls = this.way !== "stream";
    this.#backoff.forgive();
    this.#pause = looked ? 0 : asked || POLL_EVERY;
    if (status === 404) return this.#unknown(now);
    const answer = read(body, VIEW, "a view");
    const news = this.#fold(answer, looked && isSame(answer.position, this.view.position));
    if (this.way === "long_poll") {
      // Whoever answers early with nothing new ignores `wait`: that is a poll like any other.
      const early = this.#waits && now - this.#asked < LONG_POLL_SECONDS / 2;
      this.#pause = news ? NEWS_PAUSE : early ? POLL_EVERY : 0;
    }
    return news;
  }

  #fold(answer, news = false) {
    this.#unknownSince = null;
    news ||= this.view.isOlderThan(answer);
    if (news) this.view.merge(answer);
    this.done = TERMINAL.includes(answer.state) && isSame(answer.position, this.view.position);
    return news;
  }

  /** Seconds to wait after a poll that was answered. */
  pause() {
    return this.#pause;
  }

  /** What a poll beside a stream has seen, and the stream not brought: a function that folds it, or null. */
  ahead(status, body) {
    let answer = null;
    try {
      if (status === 200) answer = read(body, VIEW, "a view");
    } catch {
      // It will be told by a poll that counts.
    }
    return answer && this.view.isOlderThan(answer) ? () => this.#fold(answer) : null;
  }

  #unknown(now) {
    this.#unknownSince ??= now;
    if (now - this.#unknownSince < UNKNOWN_WAIT) return false;
    const never = isSame(this.view.position, START);
    const message = never ? "There is no such task." : "The task is no longer known.";
    const error = { code: "unknown_task", message };
    const [result, usage, truncated] = [null, null, false];
    this.view.apply(UNKNOWN_TASK_END, "end", { state: "failed", error, result, usage, truncated });
    this.done = true;
    return true;
  }

  // What goes wrong.

  /** The request failed, or the stream ended early: seconds to wait before the next. Throws `error` when it
   * won't pass, or when it is time to give up (rule 5). Its `kind` tells how it failed.
   */
  failed(error) {
    if (error.code !== "unavailable") throw error;
    const { clock, patienceSeconds } = this.#options;
    const now = clock();
    // Counted from the first failure that was noticed: a page may have slept for hours with its stream.
    this.#awaySince ??= now;
    const away = !this.#reached || now - this.#awaySince > patienceSeconds;
    const mute = this.way === "stream" && error.kind === "mute";
    // A way that fails while there is another decides nothing.
    const decides = this.way === "stream" ? !mute && !this.#ways.trial : this.way === "poll";
    if (away && decides) throw error;
    this.#ways.failed(error.kind, now);
    if (mute) return 0;
    if (this.#opened !== null && now - this.#opened >= STEADY) this.#backoff.forgive();
    return Math.max(this.#backoff.failed(), this.#retryAfter);
  }

  #refuse(status, headers, body) {
    if (status === 200) return;
    this.#retryAfter = retryAfter(headers.get("retry-after"));
    if (status === 503 && PASSING.includes(wordsOf(body).code)) this.#answeredNow();
    throw refusal(status, body);
  }
}

/** The code of an error in a gateway's own words, and its message on one line: empty for anything else. */
function wordsOf(body) {
  try {
    const { code, message } = JSON.parse(body).error;
    return { code, message: message.replace(/\s+/g, " ").trim().slice(0, 300) };
  } catch {
    return { code: "", message: "" };
  }
}

/** The error that an answer with this status means. Quotes the gateway's own words, if there are any. */
function refusal(status, body) {
  const { message } = wordsOf(body);
  const why = `${message || "no reason given"} (${status})`;
  if ([408, 425, 429].includes(status) || status >= 500) {
    return unavailable(`the gateway can't serve now: ${why}`, { status });
  }
  if (status !== 404) return new BridgeError("refused", `the gateway refused: ${why}`, { status });
  const absent = message || "no such task, or no gateway at this address";
  return new BridgeError("not_found", `${absent} (404)`, { status });
}

// --- The shell: connections, timers, callbacks -------------------------------------------------------------

const CHECK_SECONDS = [3, 6, 12, 15]; // how long an EventSource may bring nothing before one looks, each time
const LATE_SECONDS = 1; // how long a stream may be behind what a poll has seen
const REOPEN_SECONDS = 20; // how long the browser's own reconnect may take
const SEATS = 4; // what may hold a connection for long, in all tabs of a browser together
const NO_SEAT = "as many streams as the browser can hold are open already";
const NO_SIGN = "the gateway gives no sign, though its stream was not cut";
const MUTE = "nothing comes through: somebody in between may hold the stream back";
const LATE_ANSWER = "the gateway didn't answer in time";
const LONGEST_TIMER = 2 ** 31 - 1; // ms; setTimeout takes more for nothing
const TRANSPORTS = ["auto", "eventsource", "fetch", "poll"];

const CLOSED = Symbol("closed");
const AGAIN = Symbol("again");

/** Follows a task until its end, over as many connections as it takes.
 *
 * See bridge.d.ts for the options. Throws a BridgeError (`invalid_input`) for an id or an option that can't
 * work; everything later is told by `done`.
 */
export function follow(taskId, options = {}) {
  return new Following(taskId, options);
}

/** One request, stream or pause: it can be cut at any time, by whoever finds a reason, and leaves nothing. */
class Line {
  #abort = new AbortController();
  #timer;
  #waiting = new Set();
  /** Why it was cut, or null. */
  cause = null;
  /** Grows with every `later`, so that one can see whether anything else came meanwhile. */
  turn = 0;

  get signal() {
    return this.#abort.signal;
  }

  /** Waits for a promise, or for being cut. */
  wait(promise) {
    return new Promise((resolve, reject) => {
      if (this.cause !== null) reject(this.cause);
      this.#waiting.add(reject);
      promise.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  /** Calls back later. There is one timer: the next call replaces it. */
  later(seconds, callback) {
    clearTimeout(this.#timer);
    this.turn += 1;
    if (this.cause === null) this.#timer = setTimeout(callback, Math.min(seconds * 1000, LONGEST_TIMER));
  }

  /** Lets it fail as `kind` unless something comes in that time. */
  expect(seconds, kind, message) {
    this.later(seconds, () => this.cut(unavailable(message, { kind })));
  }

  cut(cause = CLOSED) {
    this.turn += 1;
    if (this.cause !== null) return;
    this.cause = cause;
    clearTimeout(this.#timer);
    for (const reject of this.#waiting) reject(cause);
    this.#abort.abort();
  }
}

class Following {
  #options;
  #base;
  #session;
  #EventSource;
  #view;
  #version = 0;
  #change = newChange();
  #line = null;
  #backingOff = false;
  #closing = false;
  #over = false;
  #told = "";
  #stats = { requests: 0, connects: 0, characters: 0, way: null };

  constructor(taskId, options) {
    const { transport = "auto", after, openSeconds, silenceSeconds, patienceSeconds } = options;
    if (!TRANSPORTS.includes(transport)) {
      throw invalid(`transport is one of ${TRANSPORTS.join(", ")} (got ${transport})`);
    }
    const streams = transport !== "poll";
    this.#options = { ...options };
    // Where nobody says where the gateway is, it is the one that this module came from.
    const reached = options.baseUrl === undefined;
    const times = { openSeconds, silenceSeconds, patienceSeconds };
    this.#session = new Session(taskId, { after, lookFirst: true, streams, reached, ...times });
    this.#base = new URL(`tasks/${taskId}/`, baseOf(options.baseUrl));
    this.#EventSource = eventSourceFor(options, transport);
    this.#view = this.#session.view.toJSON();
    this.done = Promise.resolve().then(() => this.#run());
    // Who doesn't look at `done` isn't punished for it: `onConnection` tells, too.
    this.done.catch(() => {});
  }

  get view() {
    return this.#view;
  }

  get stats() {
    return { ...this.#stats, characters: this.#stats.characters + this.#session.characters };
  }

  /** Latest wins: a slow reader skips views, never the last. Leaving the loop doesn't end the following. */
  async *[Symbol.asyncIterator]() {
    let seen = 0;
    for (;;) {
      if (this.#version > seen) {
        seen = this.#version;
        yield this.#view;
      } else if (this.#over) {
        await this.done;
        return;
      } else {
        await this.#change.promise;
      }
    }
  }

  /** Asks the task to stop. The following goes on, to see it end. */
  async cancel() {
    const line = new Line();
    try {
      const answer = await this.#ask(line, "cancel", { method: "POST", headers: POLL_HEADERS });
      if (answer.status < 200 || answer.status > 299) throw refusal(answer.status, answer.body);
      return jsonObject(answer.body);
    } finally {
      line.cut();
    }
  }

  /** Drops the connection, and comes back at once by the position. */
  reconnect() {
    this.#line?.cut(AGAIN);
  }

  /** Stops following; the task goes on, and `done` gives the view so far. */
  close() {
    this.#closing = true;
    this.#line?.cut(CLOSED);
  }

  // --- The loop --------------------------------------------------------------------------------------------

  async #run() {
    const { signal } = this.#options;
    const close = () => this.close();
    const hurry = () => this.#hurry();
    const page = globalThis.document;
    if (signal?.aborted) close();
    signal?.addEventListener("abort", close);
    globalThis.addEventListener?.("online", hurry);
    page?.addEventListener("visibilitychange", hurry);
    try {
      while (!this.#session.done && !this.#closing) await this.#sleep(await this.#once());
      this.#tell("closed", { reason: this.#session.done ? "the task has ended" : "closed" });
      return this.#view;
    } catch (error) {
      this.#tell("closed", { reason: error.message, error });
      throw error;
    } finally {
      this.#over = true;
      this.#change.resolve();
      signal?.removeEventListener("abort", close);
      globalThis.removeEventListener?.("online", hurry);
      page?.removeEventListener("visibilitychange", hurry);
    }
  }

  /** One stream or poll; the seconds to wait before the next. */
  async #once() {
    const request = this.#session.next();
    const seat = request.way === "poll" ? null : await takeSeat(this.#base.origin);
    const held = request.way === "poll" || seat !== null;
    if (this.#closing) {
      seat?.();
      return 0;
    }
    if (request.way === "stream" && !held) return this.#session.failed(unavailable(NO_SEAT, { kind: "mute" }));
    // A long poll that doesn't wait is answered at once, and the session pauses as after any other.
    if (!held) delete request.query.wait;
    const line = (this.#line = new Line());
    const streamed = this.#EventSource ? "eventsource" : "fetch";
    this.#stats.way = request.way === "stream" ? streamed : held ? request.way : "poll";
    if (request.way === "stream" || !this.#told.startsWith("open")) this.#tell("connecting");
    try {
      if (request.way !== "stream") return await this.#poll(request, line);
      await (this.#EventSource ? this.#listen(request, line) : this.#read(request, line));
      if (this.#session.done) return 0;
      throw unavailable("the stream was closed before the task's end");
    } catch (error) {
      if (error === CLOSED || error === AGAIN || this.#session.done) return 0;
      const seconds = this.#session.failed(error);
      this.#backingOff = true;
      this.#tell("waiting", { reason: error.message, retryInSeconds: seconds });
      return seconds;
    } finally {
      line.cut();
      this.#line = null;
      seat?.();
    }
  }

  /** Waits, unless somebody says before that it is time. */
  async #sleep(seconds) {
    if (seconds > 0 && !this.#closing && !this.#session.done) {
      const line = (this.#line = new Line());
      await line.wait(new Promise((resolve) => line.later(seconds, resolve))).catch(() => {});
      this.#line = null;
    }
    this.#backingOff = false;
  }

  /** The network is back, or somebody looks at the page again: no time to wait for a backoff. */
  #hurry() {
    if (this.#backingOff && globalThis.document?.visibilityState !== "hidden") this.#line?.cut(AGAIN);
  }

  /** New events were folded: hand out a view. */
  #publish(news) {
    if (!news) return;
    this.#view = this.#session.view.toJSON();
    this.#version += 1;
    const change = this.#change;
    this.#change = newChange();
    change.resolve();
    call(this.#options.onView, this.#view);
  }

  #tell(state, { reason = null, retryInSeconds = null, error = null } = {}) {
    const { way } = this.#stats;
    const told = `${state} ${way}`;
    if (state === "open" && told === this.#told) return;
    this.#told = told;
    call(this.#options.onConnection, { state, way, reason, retryInSeconds, error });
  }

  // --- Requests --------------------------------------------------------------------------------------------

  #url(what, query = {}) {
    const url = new URL(what, this.#base);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url.href;
  }

  /** What the page wants to go with a request, asked for anew each time: tickets run out. */
  async #brought(line) {
    const { headers, ticket } = this.#options;
    const asked = async (option) => (typeof option === "function" ? option() : option);
    line.expect(ANSWER_SECONDS, "broken", "the page's own headers or ticket didn't come");
    return this.#arrival(line, Promise.all([asked(headers), asked(ticket)]));
  }

  /** The clock of the answer runs from the request on: what the page brings has a time of its own. */
  async #fetch(line, what, { way, query, headers, answerSeconds = ANSWER_SECONDS, ...init }) {
    const [own, ticket] = await this.#brought(line);
    const { credentials, fetch = globalThis.fetch } = this.#options;
    const all = new Headers(own ?? {});
    for (const [name, value] of Object.entries(headers)) all.set(name, value);
    // In the URL only where it must be: URLs get into more logs than headers.
    if (ticket && !all.has("Authorization")) all.set("Authorization", `Bearer ${ticket}`);
    else if (ticket) query = { ...query, ticket };
    // A cache of the browser's would make conditional requests of polls, which mean something else.
    const options = { ...init, headers: all, cache: "no-store", signal: line.signal };
    if (credentials) options.credentials = credentials;
    this.#stats.requests += 1;
    line.expect(answerSeconds, ...(way === "stream" ? ["mute", MUTE] : ["broken", LATE_ANSWER]));
    return this.#arrival(line, fetch(this.#url(what, query), options));
  }

  /** A whole answer. */
  async #ask(line, what, init) {
    const response = await this.#fetch(line, what, init);
    const { status, headers } = response;
    const body = await this.#arrival(line, response.text());
    this.#stats.characters += body.length;
    return { status, headers, body };
  }

  async #arrival(line, promise) {
    try {
      return await line.wait(promise);
    } catch (error) {
      throw this.#troubleOf(error, line);
    }
  }

  #troubleOf(error, line) {
    if (line.cause !== null) return line.cause;
    if (error instanceof BridgeError) return error;
    const why = error?.cause?.message || error?.message || error;
    return unavailable(`no answer from ${this.#base.origin}: ${why}`, { cause: error });
  }

  // --- The ways: polls, fetch streams, EventSource ---------------------------------------------------------

  async #poll(request, line) {
    const { status, headers, body } = await this.#ask(line, "status", request);
    const news = this.#session.polled(status, headers, body);
    this.#tell("open");
    this.#publish(news);
    return this.#session.done ? 0 : this.#session.pause();
  }

  async #read(request, line) {
    const response = await this.#fetch(line, "events", request);
    const refused = response.status !== 200 && response.status !== 204;
    const said = refused ? await this.#arrival(line, response.text()) : "";
    this.#session.answered(response.status, response.headers, said);
    if (this.#session.done) return;
    if (!response.body) throw unavailable("this fetch can't read streams", { kind: "mute" });
    this.#stats.connects += 1;
    const reader = response.body.getReader();
    try {
      while (!this.#session.done) {
        const { done, value } = await this.#arrival(line, reader.read());
        if (done) return;
        line.expect(request.silenceSeconds, "silent", "the stream fell silent");
        this.#tell("open");
        this.#publish(this.#session.receive(value).length > 0);
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  async #listen(request, line) {
    const withCredentials = this.#options.credentials === "include";
    const [, ticket] = await this.#brought(line);
    const url = this.#url("events", { ...this.#session.since(), ...(ticket && { ticket }) });
    line.expect(request.answerSeconds, "mute", MUTE);
    const source = new this.#EventSource(url, { withCredentials });
    this.#stats.requests += 1;
    try {
      await line.wait(new Promise((resolve, reject) => this.#attach(source, line, resolve, reject)));
    } finally {
      source.close();
    }
  }

  /** What happens on an EventSource. Its first reconnect is its own, since it knows the server's `retry:`. */
  #attach(source, line, resolve, reject) {
    let failures = 0;
    const on = (name, act) =>
      source.addEventListener(name, (event) => {
        try {
          if (line.cause === null) act(event);
          if (this.#session.done) resolve();
        } catch (error) {
          reject(error);
        }
      });
    on("open", () => {
      this.#session.opened();
      this.#stats.connects += 1;
      this.#tell("open");
      this.#watch(line, 0);
    });
    for (const kind of KINDS) {
      on(kind, ({ data, lastEventId }) => {
        failures = 0;
        this.#tell("open");
        this.#watch(line, CHECK_SECONDS.length);
        this.#publish(this.#session.heard([{ event: kind, data, id: lastEventId }]).length > 0);
      });
    }
    on("error", () => {
      failures += 1;
      if (source.readyState === 2) {
        // For ever, and EventSource doesn't say why.
        resolve(this.#whyClosed(line));
      } else if (failures > 1) {
        reject(unavailable("the stream broke twice without an event between"));
      } else {
        this.#stats.requests += 1;
        line.expect(REOPEN_SECONDS, "broken", "the stream didn't come back");
        this.#tell("waiting", { reason: "the stream broke; the browser reconnects by itself" });
      }
    });
  }

  /** Rule 9: after a while without an event, look whether there should have been one. */
  #watch(line, round, failures = 0) {
    const seconds = CHECK_SECONDS[Math.min(round, CHECK_SECONDS.length - 1)];
    line.later(seconds, () => this.#check(line, round, failures).catch((error) => line.cut(error)));
  }

  async #check(line, round, failures) {
    const { turn } = line;
    const answer = await this.#glance(line).catch(() => null);
    if (line.turn !== turn) return; // An event came, or the stream ended: all is well, or known.
    const failed = !answer || answer.status >= 500;
    const fold = failed ? null : this.#session.ahead(answer.status, answer.body);
    if (!fold) {
      if (!failed) this.#tell("open");
      else if (failures === 1) this.#tell("waiting", { reason: NO_SIGN });
      this.#watch(line, round + 1, failed ? failures + 1 : 0);
      return;
    }
    line.later(LATE_SECONDS, () => {
      this.#publish(fold());
      line.cut(unavailable(MUTE, { kind: "mute" }));
    });
  }

  /** A poll beside a stream. */
  async #glance(line) {
    const own = new Line();
    line.signal.addEventListener("abort", () => own.cut(line.cause), { signal: own.signal });
    try {
      return await this.#ask(own, "status", { query: this.#session.since("0"), headers: POLL_HEADERS });
    } finally {
      own.cut();
    }
  }

  async #whyClosed(line) {
    line.expect(2 * ANSWER_SECONDS, "broken", LATE_ANSWER);
    const { status, headers, body } = await this.#glance(line);
    // The stream of a task that isn't there would have waited for it: here is no gateway. Where streams were
    // opened before there is one, and what refused this one was somebody in between.
    if (status === 404 && !this.#stats.connects) throw refusal(status, body);
    this.#publish(this.#session.polled(status, headers, body));
    if (!this.#session.done) throw unavailable("the stream was refused, but not the poll");
  }
}

// --- Helpers -----------------------------------------------------------------------------------------------

/** Where the gateway is: beside this module, unless one says otherwise. Always ends with a slash. */
function baseOf(baseUrl) {
  let url = null;
  try {
    const here = globalThis.document?.baseURI ?? globalThis.location?.href;
    url = baseUrl === undefined ? new URL(".", import.meta.url) : new URL(baseUrl, here);
  } catch {
    // Told below.
  }
  if (!/^https?:$/.test(url?.protocol)) {
    throw invalid("baseUrl must say where the gateway is, as in http://127.0.0.1:8620/");
  }
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/** The EventSource to use, or null for fetch: EventSource can't send headers, nor leave cookies away. */
function eventSourceFor(options, transport) {
  const { EventSource = globalThis.EventSource, headers, credentials } = options;
  if (transport === "fetch" || transport === "poll") return null;
  const fits = EventSource && !headers && credentials !== "omit";
  if (transport === "eventsource") {
    if (fits) return EventSource;
    throw invalid("there is no EventSource here, or it can't do what the options ask");
  }
  // Who brings a fetch of their own wants it to be used.
  return fits && (options.EventSource || !options.fetch) ? EventSource : null;
}

/** Takes one of the seats at this host (rule 12): a function that leaves it, or null when there is none.
 *
 * Locks are shared by all tabs of an origin, and those of a closed tab are free again. A page that has none
 * (of plain http:// but localhost, or not allowed any) counts its own seats. Outside of browsers there is
 * always a seat.
 */
async function takeSeat(origin) {
  const page = globalThis.document ?? globalThis.WorkerGlobalScope;
  if (!page || speaksHttp2(origin)) return () => {};
  const locks = globalThis.navigator?.locks;
  if (!locks) return takeSeatHere(origin);
  const options = { ifAvailable: true };
  for (let number = 1; number <= SEATS; number++) {
    const seat = await new Promise((resolve) => {
      const name = `bridge ${origin} ${number}`;
      // A lock is held until the promise that its callback returns is resolved, which is to leave the seat.
      const take = (lock) => lock && new Promise(resolve);
      // Without a lock that is done at once; a page that may not have any gets an error.
      locks.request(name, options, take).then(
        () => resolve(null),
        () => resolve(takeSeatHere(origin)),
      );
    });
    if (seat) return seat;
  }
  return null;
}

const taken = new Map(); // how many seats at each host this page holds without locks

function takeSeatHere(origin) {
  const before = taken.get(origin) ?? 0;
  if (before >= SEATS) return null;
  taken.set(origin, before + 1);
  return () => taken.set(origin, taken.get(origin) - 1);
}

/** Whether all requests to this host share one connection, as far as the browser tells. */
function speaksHttp2(origin) {
  const entries = ["navigation", "resource"].flatMap((type) => performance.getEntriesByType(type));
  const here = entries.filter(({ name }) => name.startsWith(`${origin}/`));
  return here.some(({ nextHopProtocol }) => /^h[23]/.test(nextHopProtocol));
}

function newChange() {
  const change = {};
  change.promise = new Promise((resolve) => (change.resolve = resolve));
  return change;
}

/** Calls a callback of the page's. What it throws is its own affair, and doesn't end the following. */
function call(callback, value) {
  if (!callback) return;
  const report = globalThis.reportError ?? console.error;
  try {
    Promise.resolve(callback(value)).catch(report);
  } catch (error) {
    report(error);
  }
}
