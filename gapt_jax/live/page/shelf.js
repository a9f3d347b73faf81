const FORMS = { mid: "MIDI", json: "JSON", wav: "WAV" };
const DATE = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };

/** Lists the takes that the server still has, with their files; hidden where there are none. */
export async function showTakes(element, takes, addressOf, exists) {
  const rows = await Promise.all(takes.map((take) => rowOf(take, addressOf, exists)));
  const found = rows.filter(Boolean);
  element.querySelector("ol").replaceChildren(...found);
  element.hidden = !found.length;
}

async function rowOf({ id, model, at, name: given }, addressOf, exists) {
  const kinds = Object.keys(FORMS);
  const kept = await Promise.all(kinds.map((kind) => exists(addressOf(id, kind))));
  if (!kept.some(Boolean)) return null;
  const row = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = `${given ?? new Date(at).toLocaleString(undefined, DATE)}, ${model}`;
  row.append(name, ...kinds.filter((_, index) => kept[index]).map((kind) => linkTo(addressOf(id, kind), FORMS[kind])));
  return row;
}

function linkTo(href, text) {
  return Object.assign(document.createElement("a"), { href, textContent: text, download: "" });
}
