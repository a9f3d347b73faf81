const known = new Map();

/** A chord symbol for the eye: in its parts, with real flats and sharps. Kept, since the view asks at every frame. */
export function chordName(symbol) {
  let name = known.get(symbol);
  if (!name) {
    const text = symbol.replace(/([A-G])b/g, "$1♭").replace(/b(\d)/g, "♭$1").replaceAll("#", "♯");
    const [, root, accidental, rest] = /^([A-G]?)([♭♯]?)(.*)$/.exec(text);
    name = { text, root, accidental, rest };
    known.set(symbol, name);
  }
  return name;
}
