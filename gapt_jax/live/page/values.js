/** A number as a field may hold it: in steps, within its bounds; `fallback` where it is none. */
export function cleanNumber(value, { min, max, step, fallback }) {
  const number = Number.isFinite(value) ? value : fallback;
  const stepped = Math.round(number / step) * step;
  return Number(Math.min(max, Math.max(min, stepped)).toFixed(2));
}

/** What the settings that were kept may say: by the name of a field, of the type that the field has. */
export function cleanStored(found, types) {
  const named = found !== null && typeof found === "object" ? Object.entries(found) : [];
  return Object.fromEntries(named.filter(([name, value]) => {
    const type = Object.hasOwn(types, name) ? types[name] : null;
    return typeof value === type && (type !== "number" || Number.isFinite(value));
  }));
}
