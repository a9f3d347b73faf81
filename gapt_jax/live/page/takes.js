const STORE = "gapt-live-takes";
const KEPT = 10;

/** The last takes, newest first, each {id, model, at}: kept in localStorage, so that a reload does not lose them. */
export class Takes {
  constructor() {
    this.list = load();
  }

  get last() {
    return this.list[0];
  }

  add(take) {
    this.list = [take, ...this.list.filter(({ id }) => id !== take.id)].slice(0, KEPT);
    try {
      localStorage.setItem(STORE, JSON.stringify(this.list));
    } catch {
      return;
    }
  }
}

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE));
    return Array.isArray(found) ? found.filter(isTake).slice(0, KEPT) : [];
  } catch {
    return [];
  }
}

function isTake(found) {
  return typeof found?.id === "string" && typeof found.model === "string" && Number.isFinite(found.at);
}
