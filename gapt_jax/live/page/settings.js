const STORE = "gapt-live";

/** The form's named fields, kept in localStorage. The bounds and defaults are those written in the page. */
export class Settings {
  constructor(form, onchange) {
    this.form = form;
    this.stored = load();
    this.fields = [...form.elements].filter((field) => field.name);
    for (const field of this.fields) {
      this.restore(field);
      field.addEventListener(field.type === "range" ? "input" : "change", () => {
        clean(field);
        this.refresh();
        this.keep(field.name);
        onchange(field.name);
      });
    }
    this.refresh();
  }

  restore(field) {
    const value = this.stored[field.name];
    if (value === undefined) return;
    if (field.type === "checkbox") field.checked = value === true;
    else field.value = value;
    if (field.tagName === "SELECT" && !field.value) field.selectedIndex = 0;
    clean(field);
  }

  refresh() {
    this.values = Object.fromEntries(this.fields.map((field) => [field.name, valueOf(field)]));
  }

  keep(...names) {
    for (const name of names) this.stored[name] = this.values[name];
    save(this.stored);
  }

  set(values) {
    const names = Object.keys(values).filter((name) => this.form.elements[name]);
    for (const name of names) {
      const field = this.form.elements[name];
      if (field.type === "checkbox") field.checked = values[name];
      else field.value = values[name];
    }
    this.refresh();
    this.keep(...names);
  }

  /** Options [value, text] that are known only later; what was kept is chosen when it is among them. */
  fill(name, options) {
    const field = this.form.elements[name];
    field.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    this.restore(field);
    this.refresh();
  }
}

function valueOf(field) {
  if (field.type === "checkbox") return field.checked;
  return field.type === "number" || field.type === "range" ? field.valueAsNumber : field.value;
}

function clean(field) {
  if (field.type !== "number" || field.checkValidity()) return;
  const { min, max, step, defaultValue } = field;
  const number = Number.isNaN(field.valueAsNumber) ? Number(defaultValue) : field.valueAsNumber;
  const stepped = Math.round(number / step) * step;
  field.value = Number(Math.min(Number(max), Math.max(Number(min), stepped)).toFixed(2));
}

/** Storage may be forbidden or hold anything; the page works without it. */
function load() {
  try {
    return Object(JSON.parse(localStorage.getItem(STORE)));
  } catch {
    return {};
  }
}

function save(values) {
  try {
    localStorage.setItem(STORE, JSON.stringify(values));
  } catch {
    return;
  }
}
