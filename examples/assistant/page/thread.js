// One conversation: its bubbles, and the answers that are on their way. A thread has an element of its own
// that is shown or not, so its answers go on while the user reads another.

import { Answer } from "./answer.js";
import { get, post } from "./api.js";
import { Bubble } from "./bubble.js";

export class Thread {
  /** null until the first message is sent */
  id;
  /** A message is on its way to the server. */
  sending = false;
  element = document.createElement("ol");
  #bubbles = new Map(); // by message: an answer's is there before its id is known, so it goes by its task's
  #answers = new Map(); // those that were on their way, by task
  #on;

  /** `on.changed()` for all that is seen beyond the bubbles; `on.ended(thread, answer)`; `on.failed(error)`. */
  constructor(id, on) {
    this.id = id;
    this.#on = on;
  }

  get empty() {
    return this.#bubbles.size === 0 && !this.sending;
  }

  /** The answer that is being written, or null. */
  get running() {
    return [...this.#answers.values()].find(({ running }) => running) ?? null;
  }

  /** Whether anything would be missed if it were let go of. */
  get busy() {
    return this.sending || [...this.#answers.values()].some(({ settled }) => !settled);
  }

  /** Bring it up to date with the server. Throws a Refusal. */
  async load() {
    const { messages, running } = await get(`conversations/${this.id}`);
    // What is being sent has a bubble already, but no id by which it would be known.
    if (this.sending) return;
    messages.forEach((message, index) => this.#put(message, index));
    for (const generation of running) this.#follow(generation);
    this.#on.changed();
  }

  /** Ask. Throws a Refusal; should something have been stored all the same, `load` shows it. */
  async send(content, provider) {
    const bubble = new Bubble("user");
    this.sending = true;
    try {
      bubble.sent(content);
      this.element.append(bubble.element);
      this.#on.changed();
      const question = { content, ...(this.id && { conversation_id: this.id }), ...(provider && { provider }) };
      const sent = await post("messages", question, { prefer: "respond-async" });
      this.id = sent.conversation_id;
      bubble.message(sent.user);
      this.#bubbles.set(keyOf(sent.user), bubble);
      this.#follow(sent);
    } catch (error) {
      bubble.element.remove();
      throw error;
    } finally {
      this.sending = false;
      this.#on.changed();
    }
  }

  async stop() {
    await this.running?.cancel();
  }

  /** Show a message of the database where it belongs. */
  #put(message, index) {
    const bubble = this.#bubble(keyOf(message), message.role);
    bubble.message(message);
    const here = this.element.children[index];
    if (here !== bubble.element) this.element.insertBefore(bubble.element, here);
  }

  #bubble(key, role) {
    if (!this.#bubbles.has(key)) {
      const bubble = new Bubble(role);
      this.#bubbles.set(key, bubble);
      this.element.append(bubble.element);
    }
    return this.#bubbles.get(key);
  }

  async #follow(generation) {
    const { task_id } = generation;
    if (this.#answers.has(task_id)) return;
    const bubble = this.#bubble(answerKey(task_id), "assistant");
    let running = null;
    const answer = new Answer(generation, () => {
      bubble.answer(answer);
      // Text is the bubble's own affair.
      if (answer.running !== running) this.#on.changed();
      running = answer.running;
    });
    this.#answers.set(task_id, answer);
    bubble.answer(answer);
    try {
      await answer.run();
      if (answer.settled) this.#on.ended(this, answer);
    } catch (error) {
      this.#on.failed(error);
    }
  }
}

const answerKey = (taskId) => `answer ${taskId}`;
const keyOf = ({ id, task_id }) => (task_id ? answerKey(task_id) : `message ${id}`);
