import { load, save } from "./storage.js";

const STORE = "gapt-live-takes";
const KEPT = 10;

/** The last takes, newest first, each {id, model, at}: kept in localStorage, so that a reload does not lose them. */
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
}

function kept(found) {
  return Array.isArray(found) ? found.filter(isTake).slice(0, KEPT) : [];
}

function isTake(found) {
  return typeof found?.id === "string" && typeof found.model === "string" && Number.isFinite(found.at);
}
