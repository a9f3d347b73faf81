const NAMED = { Semicolon: ";" };

/** What the keyboard writes on its keys, by code; empty where the browser does not tell. */
export async function readLayout() {
  try {
    return new Map(await navigator.keyboard.getLayoutMap());
  } catch {
    return new Map();
  }
}

/** A key's label in capitals: its own by the layout, else the one at its place on an English keyboard. */
export function labelOf(code, layout) {
  const own = layout.get(code)?.trim();
  return (own || NAMED[code] || code.replace(/^Key/, "")).toUpperCase();
}
