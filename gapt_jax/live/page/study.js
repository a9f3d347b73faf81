/**
 * A study's consent before a take and its questions after it. Hidden where the server keeps no study.
 * Callbacks: onsubmit() when the code is entered, onanswers(answers), ondone() when the questions are answered or
 * skipped.
 */
export class Study {
  constructor({ consent, dialog }) {
    Object.assign(this, { consent, dialog });
    this.on = false;
    this.form = dialog.querySelector("form");
    this.fault = dialog.querySelector("[role=alert]");
    const { participant, agreed } = consent.elements;
    agreed.addEventListener("change", () => (participant.required = agreed.checked));
    consent.addEventListener("submit", (event) => {
      event.preventDefault();
      this.onsubmit();
    });
    this.form.addEventListener("submit", (event) => this.submit(event));
    dialog.querySelector("#skip").addEventListener("click", () => dialog.close());
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => this.ondone());
  }

  get asking() {
    return this.dialog.open;
  }

  /** What the server's `ready` says of its study, if anything. */
  set({ questions, scale } = {}) {
    this.on = questions !== undefined;
    this.consent.hidden = !this.on;
    if (this.on && !this.asking) this.lay(questions, scale);
  }

  /** Whether the form can be used as it is; says why where it cannot. */
  check() {
    return !this.on || this.consent.reportValidity();
  }

  /** What `start` says of the participant; nothing without consent. */
  get said() {
    const { participant, agreed } = this.consent.elements;
    return this.on && agreed.checked ? { study: { participant: participant.value } } : {};
  }

  lay(questions, [low, high]) {
    this.questions = questions.map(({ name }) => name);
    const values = Array.from({ length: high - low + 1 }, (_, index) => low + index);
    const sets = questions.map(({ name, text, low: least, high: most }) => {
      const set = make("fieldset", { className: "question" }, make("legend", { textContent: text }));
      const scale = make("div", { className: "scale" }, ...values.map((value) => choice(name, value, value)));
      scale.prepend(make("span", { textContent: least }));
      scale.append(make("span", { textContent: most }));
      scale.firstChild.nextSibling.firstChild.setAttribute("aria-label", `${low}, ${least}`);
      scale.lastChild.previousSibling.firstChild.setAttribute("aria-label", `${high}, ${most}`);
      const skip = choice(name, "", "Skip this question");
      skip.className = "tick";
      set.append(scale, skip);
      return set;
    });
    this.form.querySelector(".questions").replaceChildren(...sets);
  }

  ask() {
    this.form.reset();
    this.fault.textContent = "";
    this.dialog.showModal();
  }

  submit(event) {
    event.preventDefault();
    this.fault.textContent = "";
    const given = new FormData(this.form);
    this.onanswers(Object.fromEntries(this.questions.map((name) => [name, Number(given.get(name)) || null])));
  }

  /** The answers could not be sent or written; they stay in the form. */
  fail(text) {
    this.fault.textContent = text;
  }

  answered() {
    this.dialog.close();
  }
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function choice(name, value, text) {
  return make("label", {}, make("input", { type: "radio", name, value, required: true }), String(text));
}
