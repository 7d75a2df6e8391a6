// The list of conversations, beside the one that is shown or, on a narrow screen, over it.

export class Sidebar {
  #side = document.querySelector("#side");
  #menu = document.querySelector("#menu");
  #list = document.querySelector("#list");
  #talk = document.querySelector("#talk");

  /** `on.open(id)` with the id of a conversation, or with null for a new one. */
  constructor(on) {
    this.#menu.addEventListener("click", () => this.#slide(true));
    document.querySelector("#shut").addEventListener("click", () => this.close());
    document.querySelector("#new").addEventListener("click", () => this.#choose(on, null));
    this.#list.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      // With a key held, a link opens elsewhere, as links do.
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.#choose(on, Number(link.dataset.id));
    });
  }

  /** Whether it lies over the conversation. */
  get isOver() {
    return this.#side.classList.contains("over");
  }

  close() {
    if (!this.isOver) return;
    this.#slide(false);
    this.#menu.focus();
  }

  /** Show these: `{id, title, running, unread}`, and which of them is open. */
  show(entries, open) {
    const links = new Map([...this.#list.querySelectorAll("a")].map((link) => [Number(link.dataset.id), link]));
    const items = entries.map((entry) => {
      const link = links.get(entry.id) ?? newLink(entry.id);
      paint(link, entry, entry.id === open);
      return link.parentElement;
    });
    // Only what has moved is moved: an element that is taken out loses the focus.
    items.forEach((item, index) => {
      const here = this.#list.children[index] ?? null;
      if (here !== item) this.#list.insertBefore(item, here);
    });
    while (this.#list.children.length > items.length) this.#list.lastChild.remove();
  }

  #choose(on, id) {
    if (this.isOver) this.#slide(false);
    on.open(id);
  }

  #slide(over) {
    this.#side.classList.toggle("over", over);
    this.#talk.inert = over;
    this.#menu.setAttribute("aria-expanded", String(over));
    if (over) document.querySelector("#shut").focus();
  }
}

function newLink(id) {
  const item = document.querySelector("#entry").content.firstElementChild.cloneNode(true);
  const link = item.firstElementChild;
  link.dataset.id = id;
  link.href = `#${id}`;
  return link;
}

function paint(link, { title, running, unread }, open) {
  const sign = running ? "answering" : unread ? "new answer" : "";
  link.title = title; // all of it, where there is no room
  set(link.querySelector(".name"), title);
  set(link.querySelector(".sign"), sign);
  link.classList.toggle("running", running);
  link.classList.toggle("unread", unread);
  if (open) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
