// Who is at the end of a conversation stays at the end while it grows; who has scrolled up is left alone, and
// is offered a way back.

const NEAR = 24; // px

export class Scroll {
  #box = document.querySelector("#thread");
  #newest = document.querySelector("#newest");
  #pinned = true;
  #sizes = new ResizeObserver(() => this.#follow());

  constructor() {
    this.#sizes.observe(this.#box);
    this.#box.addEventListener("scroll", () => {
      this.#pinned = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < NEAR;
      this.#newest.hidden = this.#pinned;
    });
    this.#newest.addEventListener("click", () => {
      this.toEnd();
      // The button goes away, and may not take the focus along.
      this.#box.focus();
    });
  }

  /** Show this, from its end. */
  show(element) {
    for (const child of this.#box.children) this.#sizes.unobserve(child);
    this.#box.replaceChildren(element);
    this.#sizes.observe(element);
    this.toEnd();
  }

  toEnd() {
    this.#pinned = true;
    this.#newest.hidden = true;
    this.#follow();
  }

  #follow() {
    if (this.#pinned) this.#box.scrollTop = this.#box.scrollHeight;
  }
}
