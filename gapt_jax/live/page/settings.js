import { load, save } from "./storage.js";
import { cleanNumber, cleanStored } from "./values.js";

const STORE = "gapt-live";
const NUMBERS = ["number", "range"];

/** The form's named fields, kept in localStorage. The bounds and defaults are those written in the page. */
export class Settings {
  constructor(form, onchange) {
    this.form = form;
    this.borrowed = new Set();
    this.fields = [...form.elements].filter((field) => field.name);
    this.stored = cleanStored(load(STORE), Object.fromEntries(this.fields.map((field) => [field.name, kindOf(field)])));
    for (const field of this.fields) {
      this.restore(field);
      field.addEventListener(field.type === "range" ? "input" : "change", () => {
        clean(field);
        this.borrowed.delete(field.name);
        this.refresh();
        this.keep(field.name);
        onchange(field.name);
      });
    }
    this.refresh();
  }

  restore(field) {
    const value = this.stored[field.name];
    if (value !== undefined) put(field, value);
    if (field.tagName === "SELECT" && !field.value) field.selectedIndex = 0;
  }

  refresh() {
    this.values = Object.fromEntries(this.fields.map((field) => [field.name, valueOf(field)]));
  }

  keep(...names) {
    for (const name of names) if (!this.borrowed.has(name)) this.stored[name] = this.values[name];
    save(STORE, this.stored);
  }

  set(values) {
    const names = Object.keys(values).filter((name) => this.form.elements[name]);
    for (const name of names) put(this.form.elements[name], values[name]);
    this.refresh();
    this.keep(...names);
  }

  /** Numbers for a while, not kept: until `giveBack`, or until the field is changed by hand. */
  borrow(values) {
    for (const name of Object.keys(values)) this.borrowed.add(name);
    this.set(values);
  }

  giveBack() {
    for (const name of this.borrowed) put(this.form.elements[name], this.stored[name]);
    this.borrowed.clear();
    this.refresh();
  }

  /** The most that a number may be. What is kept stays as it is. */
  bound(name, most) {
    const field = this.form.elements[name];
    field.max = most;
    put(field, this.stored[name] ?? field.valueAsNumber);
    this.refresh();
  }

  /** Options [value, text] that are known only later; what was kept is chosen when it is among them. */
  fill(name, options) {
    const field = this.form.elements[name];
    field.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    this.restore(field);
    this.refresh();
  }
}

function kindOf(field) {
  if (field.type === "checkbox") return "boolean";
  return NUMBERS.includes(field.type) ? "number" : "string";
}

function valueOf(field) {
  if (field.type === "checkbox") return field.checked;
  return NUMBERS.includes(field.type) ? field.valueAsNumber : field.value;
}

function put(field, value) {
  if (field.type === "checkbox") field.checked = value;
  else if (NUMBERS.includes(field.type)) field.value = cleaned(field, value);
  else field.value = value;
}

function clean(field) {
  if (NUMBERS.includes(field.type)) field.value = cleaned(field, field.valueAsNumber);
}

function cleaned({ min, max, step, defaultValue }, value) {
  const [least, most, by, fallback] = [min, max, step || 1, defaultValue].map(Number);
  return cleanNumber(value, { min: least, max: most, step: by, fallback });
}
