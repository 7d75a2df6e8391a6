// What a user sees who is logged in: their conversations, one of them open, and all answers on their way.
//
// A conversation is kept while it is open or something happens in it. Everything else is at the server, and
// is asked for again.

import { get, patch } from "./api.js";
import { Composer } from "./composer.js";
import { Scroll } from "./scroll.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";

const $ = (selector) => document.querySelector(selector);
const NEW = "New conversation";
const HOW = { true: "Text appears as it is written.", false: "Text is asked for every two seconds." };

export class Room {
  #composer;
  #sidebar;
  #scroll = new Scroll();
  #entries = []; // the list as the server has it
  #threads = new Map(); // by id, those that are kept
  #shown = null;
  #drafts = new Map(); // by id, null for a new conversation
  #unread = new Set();
  #due = false;
  #on = {
    changed: () => this.#paintSoon(),
    ended: (thread, answer) => this.#ended(thread, answer),
    failed: (error) => this.#refused(error),
  };

  /** For this user, as /me tells of them. */
  constructor(me) {
    $("#room").hidden = false;
    $("#name").textContent = me.name;
    this.#composer = new Composer({
      providers: me.providers,
      send: (text, provider) => this.#send(text, provider),
      stop: () => this.#stop(),
    });
    this.#sidebar = new Sidebar({ open: (id) => this.#go(id) });
    $("#streaming").checked = me.streaming;
    $("#streaming-how").textContent = HOW[me.streaming];
    $("#streaming").addEventListener("change", () => this.#switch());
    addEventListener("popstate", () => this.#open(addressed()));
    addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("visibilitychange", () => document.hidden || this.#comeBack());
    this.#open(addressed());
    this.#focus();
    this.#catchUp();
    if (!me.providers.length) notice("No model is set up, so nobody would answer.");
  }

  // --- Conversations ---------------------------------------------------------------------------------------

  #go(id) {
    history.pushState(null, "", addressOf(id));
    this.#open(id);
    this.#focus();
  }

  #focus() {
    // On a touch screen a field that has the focus brings the keyboard up.
    if (matchMedia("(pointer: fine)").matches) this.#composer.focus();
    else $("#title").focus();
  }

  /** Show this conversation, or a new one. What happens in the one before goes on. */
  async #open(id) {
    if (this.#shown) this.#drafts.set(this.#shown.id, this.#composer.text);
    const thread = this.#threads.get(id) ?? new Thread(id, this.#on);
    this.#shown = thread;
    if (id !== null) this.#threads.set(id, thread);
    this.#forget();
    this.#unread.delete(id);
    this.#composer.text = this.#drafts.get(id) ?? "";
    this.#drafts.delete(id);
    notice("");
    this.#scroll.show(thread.element);
    this.#paintSoon();
    await this.#load(thread);
  }

  async #load(thread) {
    if (thread.id === null) return;
    try {
      await thread.load();
    } catch (error) {
      if (error.status === 404) this.#threads.delete(thread.id);
      if (error.status === 404 && thread === this.#shown) this.#go(null);
      this.#refused(error);
    }
  }

  /** Keep only what is open, or what something happens in. */
  #forget() {
    for (const [id, thread] of this.#threads) {
      if (thread !== this.#shown && !thread.busy) this.#threads.delete(id);
    }
  }

  /** Ask the server which conversations there are. */
  async #refresh() {
    try {
      this.#entries = await get("conversations");
      this.#paintSoon();
    } catch (error) {
      this.#refused(error);
    }
  }

  /** The user looks at the page again. */
  #comeBack() {
    this.#load(this.#shown);
    this.#catchUp();
  }

  /** Follow what is being answered: it may have been asked before a reload, or on another screen. */
  async #catchUp() {
    await this.#refresh();
    for (const { id, running } of this.#entries) {
      if (!running || this.#threads.has(id)) continue;
      this.#threads.set(id, new Thread(id, this.#on));
      this.#load(this.#threads.get(id));
    }
  }

  // --- Answers ---------------------------------------------------------------------------------------------

  async #send(text, provider) {
    const thread = this.#shown;
    const isNew = thread.id === null;
    notice("");
    this.#scroll.toEnd();
    try {
      await thread.send(text, provider);
      if (thread === this.#shown) say("The assistant is answering.");
    } catch (error) {
      // What couldn't be sent isn't lost.
      if (thread === this.#shown) this.#composer.text ||= text;
      else this.#drafts.set(thread.id, text);
      this.#refused(error);
      // Perhaps something is being answered already, which was asked on another screen.
      await this.#load(thread);
    }
    if (isNew && thread.id !== null) {
      this.#threads.set(thread.id, thread);
      if (thread === this.#shown) history.replaceState(null, "", addressOf(thread.id));
    }
    await this.#refresh();
  }

  async #stop() {
    try {
      await this.#shown.stop();
    } catch (error) {
      this.#refused(error);
    }
  }

  #ended(thread, answer) {
    if (thread === this.#shown) {
      say(`The assistant said: ${answer.message?.content ?? answer.text}`);
    } else {
      this.#unread.add(thread.id);
      say(`There is a new answer in “${this.#titleOf(thread.id)}”.`);
      this.#forget();
    }
    this.#refresh();
  }

  #refused(error) {
    // Who isn't logged in any more finds the door.
    if (error.status === 401) location.reload();
    else notice(error.message);
  }

  // --- The rest --------------------------------------------------------------------------------------------

  async #switch() {
    const box = $("#streaming");
    const { checked } = box;
    try {
      await patch("me", { streaming: checked });
    } catch (error) {
      box.checked = !checked;
      this.#refused(error);
    }
    $("#streaming-how").textContent = HOW[box.checked];
  }

  #key(event) {
    if (event.key !== "Escape" || event.isComposing) return;
    if (this.#sidebar.isOver) this.#sidebar.close();
    else this.#stop();
  }

  #titleOf(id) {
    return this.#entries.find((entry) => entry.id === id)?.title ?? NEW;
  }

  #paintSoon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#paint();
    });
  }

  #paint() {
    const { id, sending, running, empty } = this.#shown;
    this.#composer.show({ sending, running: running !== null });
    const title = this.#titleOf(id);
    $("#title").textContent = title;
    document.title = `${title} · Assistant`;
    $("#blank").hidden = id !== null || !empty;
    const entries = this.#entries.map((entry) => {
      const thread = this.#threads.get(entry.id);
      const running = thread ? thread.running !== null : entry.running;
      return { ...entry, running, unread: this.#unread.has(entry.id) };
    });
    this.#sidebar.show(entries, id);
  }
}

/** The conversation in the page's address, or null. */
function addressed() {
  return Number(location.hash.slice(1)) || null;
}

function addressOf(id) {
  return id === null ? location.pathname : `#${id}`;
}

function notice(text) {
  $("#notice").textContent = text;
}

/** Tell those who don't see the page. */
function say(text) {
  $("#spoken").textContent = text;
}
