import { load, save } from "./storage.js";

const STORE = "gapt-live-takes";
const KEPT = 10;
const LONGEST_NAME = 60;

/** The last takes, newest first, each {id, model, at}, some with a name, and `of`, the take whose melody it has: kept in localStorage, so that a reload does not lose them. */
export class Takes {
  constructor() {
    this.list = kept(load(STORE));
  }

  get last() {
    return this.list[0];
  }

  add(take) {
    this.list = [take, ...this.list.filter(({ id }) => id !== take.id)].slice(0, KEPT);
    save(STORE, this.list);
  }

  /** The take by its new name; without one where that is empty. */
  rename(id, name) {
    this.list = this.list.map((take) => (take.id === id ? cleaned({ ...take, name: name.trim() }) : take));
    save(STORE, this.list);
    return this.list.find((take) => take.id === id);
  }
}

function kept(found) {
  return Array.isArray(found) ? found.filter(isTake).slice(0, KEPT).map(cleaned) : [];
}

function isTake(found) {
  return typeof found?.id === "string" && typeof found.model === "string" && Number.isFinite(found.at);
}

function cleaned({ id, model, at, name, of }) {
  const take = { id, model, at };
  if (typeof name === "string" && name) take.name = name.slice(0, LONGEST_NAME);
  if (typeof of === "string") take.of = of;
  return take;
}
