/** What was kept in localStorage under a name; null where there is nothing, or where storage is forbidden. */
export function load(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

/** Keeps a value where storage allows it; the page works without it. */
export function save(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    return;
  }
}
