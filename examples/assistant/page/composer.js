// Where the user writes. Enter sends and Shift+Enter starts a new line; while an answer is written, the button
// stops it, and so does Escape anywhere on the page. The focus stays where it is.

export class Composer {
  #form = document.querySelector("#composer");
  #field = document.querySelector("#question");
  #button = document.querySelector("#go");
  #choice = document.querySelector("#provider");
  #on;
  #running = false;
  #sending = false;

  /** For these `on.providers`, with `on.send(text, provider)` and `on.stop()`. */
  constructor(on) {
    this.#on = on;
    this.#choice.append(...on.providers.map(({ name }) => new Option(name, name)));
    document.querySelector("#choice").hidden = on.providers.length < 2;
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#button.addEventListener("click", (event) => {
      // The second half of a double click would stop what the first has sent.
      if (event.detail > 1) return;
      if (this.#running) on.stop();
      else this.#send();
    });
    this.#field.addEventListener("keydown", (event) => {
      // An input method takes Enter for itself; of the last one Safari says so by its code alone.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#send();
    });
    this.#field.addEventListener("input", () => this.#paint());
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#paint();
  }

  /** Whether in the conversation that is shown a message is being sent, or an answer written. */
  show({ sending, running }) {
    this.#sending = sending;
    this.#running = running;
    this.#paint();
  }

  focus() {
    this.#field.focus();
  }

  #send() {
    const text = this.#field.value;
    if (this.#running || this.#sending || !text.trim()) return;
    this.text = "";
    this.#on.send(text, this.#choice.value);
  }

  #paint() {
    const button = this.#button;
    button.classList.toggle("running", this.#running);
    button.setAttribute("aria-label", this.#running ? "Stop" : "Send");
    // A disabled button would lose the keyboard's focus; this one does nothing.
    const ready = this.#running || (!this.#sending && this.#field.value.trim() !== "");
    button.setAttribute("aria-disabled", String(!ready));
  }
}
