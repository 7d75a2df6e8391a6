// One answer, followed until its message is in the database. No DOM.
//
// Rules
// -----
// 1. The text comes from the gateway while it is written, by `follow()` of its bridge.js. The message comes
//    from the application: what stays in the bubble is what the database has.
// 2. The loop of clients that know no streams asks /check_generation every two seconds. It is the whole way
//    with streaming off; it goes on in place of a stream for as long as the gateway or its bridge.js can't be
//    reached; and behind a stream's end it fetches the message. Beside a stream it looks now and then, too:
//    one that is dead without a word must not hide that the answer is there.
// 3. An answer knows nothing of what is on the screen. It tells its owner that it has changed, and that is
//    all: so the user can read another conversation meanwhile, and nothing lands in the wrong bubble.
// 4. Only `cancel` stops an answer. Who leaves finds it finished.

import { Refusal, get, post, request } from "./api.js";

const POLL_MS = 2000;
const LOOK_MS = 15_000; // how often to ask beside a stream
const LOAD_MS = 5000; // how long its bridge.js may take
const TICKET_MS = 60_000; // how old a ticket may be when a connection is made with it
const ENDS = ["succeeded", "failed", "cancelled"];
const LATE = 3; // the task_status of an answer that is whole, and not stored yet

export class Answer {
  /** queued, running, or how it has ended */
  state;
  text = "";
  /** The stored message, once there is one. */
  message = null;
  /** Why there is no whole answer: `{message}`. */
  error = null;
  /** The worker couldn't store it; it will be, from what the bridge has. */
  unsaved = false;
  stopping = false;
  /** Nobody has begun with it for a while. */
  slow = false;
  /** It should stream, and can't at this moment. */
  interrupted = false;
  /** The application gave no answer that makes sense. */
  unreachable = false;
  #generation;
  #changed;
  #ticket;
  #following = null;
  #streams = false; // whether the stream brings what there is
  #wake = () => {};
  #closed = false;

  constructor(generation, changed) {
    this.#generation = generation;
    this.#changed = changed;
    this.#ticket = { text: generation.ticket, since: Date.now() };
    this.state = generation.state ?? "queued";
  }

  get taskId() {
    return this.#generation.task_id;
  }

  /** Whether it is still being written, as far as is known. */
  get running() {
    return !this.settled && !ENDS.includes(this.state);
  }

  /** Whether there is nothing more to come. */
  get settled() {
    return this.message !== null || this.error !== null;
  }

  /** Follow it until its message is stored. Throws a Refusal when the user isn't logged in any more. */
  async run() {
    if (this.#generation.events) this.#stream();
    try {
      if (this.#streams) await this.#pause();
      while (!this.settled) {
        await this.#check();
        if (!this.settled) await this.#pause();
      }
    } finally {
      this.#closed = true;
      this.#following?.close();
    }
  }

  /** Ask the worker to stop. Throws a Refusal. */
  async cancel() {
    if (this.stopping || !this.running) return;
    this.#tell({ stopping: true });
    try {
      await post(`generations/${this.taskId}/cancel`);
    } catch (error) {
      this.#tell({ stopping: false });
      throw error;
    }
  }

  #tell(news) {
    if (this.#closed) return;
    Object.assign(this, news);
    this.#changed(this);
  }

  /** Wait until it is time to ask: after a while, or when the stream ends or breaks. */
  #pause() {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, this.#streams ? LOOK_MS : POLL_MS);
    });
  }

  // --- The stream ------------------------------------------------------------------------------------------

  async #stream() {
    this.#streams = true;
    try {
      // …/tasks/ID/events is two steps below the gateway.
      const gateway = new URL("../../", this.#generation.events);
      const { follow } = await moduleOf(gateway);
      if (this.#closed) return;
      this.#following = follow(this.taskId, {
        baseUrl: gateway,
        ticket: () => this.#freshTicket(),
        onView: (view) => this.#show(view),
        onConnection: ({ state }) => {
          if (state === "open") this.#switch(true);
          if (state === "waiting") this.#switch(false);
        },
      });
      await this.#following.done;
      this.#streams = false;
      this.#wake();
    } catch {
      this.#switch(false);
    }
  }

  #switch(streams) {
    this.#streams = streams;
    this.#tell({ interrupted: !streams });
    if (!streams) this.#wake();
  }

  /** Why it failed, if it did, is for the application to say. */
  #show({ state, text, result }) {
    this.#tell({ state, text, unsaved: result?.persist_failed === true });
  }

  /** Tickets run out, and a connection that is lost late needs a new one. */
  async #freshTicket() {
    if (Date.now() - this.#ticket.since > TICKET_MS) {
      const { running } = await this.#conversation().catch(() => ({ running: [] }));
      const text = running.find(({ task_id }) => task_id === this.taskId)?.ticket;
      if (text) this.#ticket = { text, since: Date.now() };
    }
    return this.#ticket.text;
  }

  #conversation() {
    return get(`conversations/${this.#generation.conversation_id}`);
  }

  // --- The loop --------------------------------------------------------------------------------------------

  async #check() {
    const query = new URLSearchParams({ taskId: this.taskId, sessionId: this.#generation.conversation_id });
    const { status, body } = await request("GET", `check_generation?${query}`);
    if (status === 401) throw new Refusal(status, body);
    // What isn't JSON is somebody else's answer, who stands in between.
    if (body === null) this.#tell({ unreachable: true });
    else if (status === 417) this.#wait(body);
    else if (status === 200) this.#tell({ state: body.state, message: body });
    else if (status === 400 || status === 404) await this.#fail(body);
    else this.#tell({ unreachable: true });
  }

  #wait({ task_status, slow_pickup = false, task_output }) {
    this.#tell({ unreachable: false, unsaved: task_status === LATE });
    // A stream knows more than this, also one that has ended.
    if (this.#streams || ENDS.includes(this.state)) return;
    const state = task_status === LATE ? "succeeded" : task_status === 1 ? "queued" : "running";
    // A gateway that is away leaves the server without text: what is here stays.
    this.#tell({ state, text: task_output?.output ?? this.text, slow: slow_pickup });
  }

  /** It has failed or was cancelled; what came of it is a message, too. */
  async #fail({ task_status, userFacingErrorMessage, error }) {
    const { messages } = await this.#conversation().catch(() => ({ messages: [] }));
    const message = messages.find(({ task_id }) => task_id === this.taskId);
    const said = userFacingErrorMessage ?? error?.message ?? "There is no answer.";
    const state = task_status === 5 ? "cancelled" : "failed";
    this.#tell({ state, message: message ?? null, error: { message: said } });
  }
}

// --- Helpers -----------------------------------------------------------------------------------------------

const modules = new Map();
let failures = 0;

/** The gateway's bridge.js. One that couldn't be loaded is tried again for the next answer. */
function moduleOf(gateway) {
  const { href } = gateway;
  if (!modules.has(href)) {
    // Some browsers remember that an address couldn't be loaded, so the next try has another.
    const address = new URL(failures ? `bridge.js?try=${failures}` : "bridge.js", gateway);
    const late = new Promise((_, reject) => setTimeout(reject, LOAD_MS, new Error("bridge.js takes too long")));
    const module = Promise.race([import(address), late]);
    modules.set(href, module);
    module.catch(() => {
      failures += 1;
      modules.delete(href);
    });
  }
  return modules.get(href);
}
