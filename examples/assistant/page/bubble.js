// One message on the screen. It is changed in place, as text, and at most once per animation frame: however
// fast an answer comes, the browser lays out what a frame can show. Nothing here knows HTML.

const WHO = { user: "You said:", assistant: "The assistant said:" };
const count = new Intl.NumberFormat("en-US");

export class Bubble {
  element;
  #role;
  #text = document.createTextNode("");
  #next = null;

  constructor(role) {
    this.#role = role;
    this.element = document.querySelector("#message").content.firstElementChild.cloneNode(true);
    this.#part("who").textContent = WHO[role];
    this.#part("text").append(this.#text);
  }

  /** Show what the user has just sent, before the server has said a word. */
  sent(text) {
    this.#show({ text });
  }

  /** Show a message of the database. */
  message(message) {
    const look = message.state === "failed" ? "failed" : message.partial ? "partial" : "";
    this.#show({ text: message.content, note: noteOf(message), meta: metaOf(message), look });
  }

  /** Show an answer on its way, and its message as soon as it has one. */
  answer(answer) {
    if (answer.message) return this.message(answer.message);
    const { text, running, error, unsaved } = answer;
    const look = error ? "failed" : unsaved ? "partial" : !running ? "" : text ? "writing" : "typing";
    this.#show({ text, note: progressOf(answer), look });
  }

  #show(state) {
    const due = this.#next !== null;
    this.#next = state;
    if (!due) requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    const { text, note = "", meta = "", look = "" } = this.#next;
    this.#next = null;
    const shown = this.#text.data;
    if (!text.startsWith(shown)) this.#text.data = text;
    else if (text !== shown) this.#text.appendData(text.slice(shown.length));
    this.#say("note", note);
    this.#say("meta", meta);
    this.element.className = `${this.#role} ${look}`.trim();
    this.element.setAttribute("aria-busy", String(look === "typing" || look === "writing"));
  }

  #part(name) {
    return this.element.querySelector(`.${name}`);
  }

  /** A screen reader and a selection notice every change, also one to the same. */
  #say(name, text) {
    const node = this.#part(name);
    if (node.textContent !== text) node.textContent = text;
  }
}

/** The sentence below an answer that isn't in the database yet. */
function progressOf({ running, error, unsaved, stopping, unreachable, interrupted, slow }) {
  if (error) return `Not finished: ${error.message}`;
  if (unreachable) return "The server can’t be reached. Trying again …";
  if (!running) return unsaved ? "Not saved yet. It was kept, and will be saved soon." : "";
  if (stopping) return "Stopping …";
  if (interrupted) return "The stream is interrupted. Asking every two seconds meanwhile.";
  return slow ? "Waiting for a free worker …" : "";
}

/** The sentence below a message that isn't whole. */
function noteOf({ role, partial, state, error }) {
  if (role !== "assistant" || !partial) return "";
  if (state === "cancelled") return "Stopped. What was written is kept.";
  return `Not finished: ${error?.message ?? "the answer broke off."}`;
}

function metaOf({ provider, model, usage }) {
  return [...new Set([provider, model, tokens(usage)])].filter(Boolean).join(" · ");
}

function tokens(usage) {
  if (usage?.input_tokens == null && usage?.output_tokens == null) return "";
  const { input_tokens: read, output_tokens: written } = usage;
  return `${count.format(read ?? 0)} tokens in, ${count.format(written ?? 0)} out`;
}
