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
  #locked;
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

  /** `locked()` is called when the user isn't logged in any more. */
  constructor(locked) {
    this.#locked = locked;
    this.#composer = new Composer({
      send: (text, provider) => this.#send(text, provider),
      stop: () => this.#stop(),
    });
    this.#sidebar = new Sidebar({ open: (id) => this.#go(id) });
    $("#streaming").addEventListener("change", () => this.#switch());
    addEventListener("popstate", () => this.#inside && this.#open(addressed()));
    addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("visibilitychange", () => this.#inside && !document.hidden && this.#comeBack());
  }

  /** Let this user in. */
  async enter(me) {
    $("#room").hidden = false;
    $("#name").textContent = me.name;
    $("#streaming").checked = me.streaming;
    $("#streaming-how").textContent = HOW[me.streaming];
    this.#composer.providers = me.providers;
    const opened = this.#open(addressed());
    this.#focus();
    await opened;
    await this.#catchUp();
    if (!me.providers.length) notice("No model is set up, so nobody would answer.");
  }

  /** Let go of everything: nothing of one user is left for the next. */
  leave() {
    $("#room").hidden = true;
    for (const thread of [this.#shown, ...this.#threads.values()]) thread?.close();
    this.#shown = null;
    for (const kept of [this.#threads, this.#drafts, this.#unread]) kept.clear();
    this.#entries = [];
    this.#composer.text = "";
    for (const part of ["#thread", "#list", "#title", "#name"]) $(part).replaceChildren();
    document.title = "Assistant";
    notice("");
    say("");
  }

  get #inside() {
    return this.#shown !== null;
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
    const thread = this.#threads.get(id) ?? new Thread(id, this.#on);
    if (this.#inside) this.#drafts.set(this.#shown.id, this.#composer.text);
    this.#shown = thread;
    this.#unread.delete(id);
    this.#forget();
    if (id !== null) this.#threads.set(id, thread);
    this.#composer.text = this.#drafts.get(id) ?? "";
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
      const entries = await get("conversations");
      if (!this.#inside) return;
      this.#entries = entries;
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
    } catch (error) {
      // What couldn't be sent isn't lost.
      if (this.#shown === thread) this.#composer.text ||= text;
      else this.#drafts.set(thread.id, text);
      this.#refused(error);
      // It is being answered already: on another screen, it seems.
      if (error.code === "busy" && this.#inside) await this.#load(thread);
      return;
    }
    if (!this.#inside) return;
    if (isNew) {
      this.#threads.set(thread.id, thread);
      if (this.#shown === thread) history.replaceState(null, "", addressOf(thread.id));
    }
    if (this.#shown === thread) say("The assistant is answering.");
    await this.#refresh();
  }

  async #stop() {
    try {
      await this.#shown?.stop();
    } catch (error) {
      this.#refused(error);
    }
  }

  #ended(thread, answer) {
    if (thread === this.#shown) {
      say(`The assistant said: ${answer.message?.content ?? answer.text}`);
    } else {
      this.#unread.add(thread.id);
      say(`There is a new answer in “${thread.title}”.`);
      this.#forget();
    }
    this.#refresh();
  }

  #refused(error) {
    if (!this.#inside) return;
    if (error.status === 401) this.#locked();
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
    if (event.key !== "Escape" || event.isComposing || !this.#inside) return;
    if (this.#sidebar.isOver) this.#sidebar.close();
    else this.#stop();
  }

  #paintSoon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      if (this.#inside) this.#paint();
    });
  }

  #paint() {
    const { id, title, sending, running, empty } = this.#shown;
    this.#composer.show({ sending, running: running !== null });
    const name = title || NEW;
    $("#title").textContent = name;
    document.title = `${name} · Assistant`;
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
