import { Playback } from "./playback.js";
import { chordName } from "./names.js";
import { Take, beatName, clockText } from "./take.js";
import { TakeRoll } from "./takeroll.js";

const TRIES = 6; // the server may still be ending the take
const TRY_MILLISECONDS = 150;
const FORMS = ["mid", "wav", "json"];
const FAILED = "The server could not play it. Try again in a while.";
const $ = (id) => document.getElementById(id);

/**
 * A whole take over the stage: to look at, to hear again, to name, to download, and the same melody with other bands.
 * `takes` are those that the browser keeps. Callbacks: onnew() for a new take, ontakes() where the kept ones changed.
 */
export class TakeView {
  constructor({ sound, clock, style, takes, addressOf, exists }) {
    Object.assign(this, { takes, addressOf, exists, take: null, entry: null, models: [], bar: null, making: null });
    this.playback = new Playback(sound, clock, style);
    this.playback.onchange = () => this.showPlace();
    this.roll = new TakeRoll($("take-roll"), this.playback);
    this.roll.onseek = (frame) => this.seek(frame);
    this.roll.ontoggle = () => this.toggle();
    $("take-play").addEventListener("click", () => this.toggle());
    $("take-new").addEventListener("click", () => this.onnew());
    $("take-close").addEventListener("click", () => this.close());
    $("take-name").addEventListener("input", () => this.rename($("take-name").value));
    $("take-name").addEventListener("change", () => this.ontakes());
    $("take-name").addEventListener("keydown", (event) => event.key === "Enter" && event.target.blur());
    $("take-retake").addEventListener("click", () => this.retake($("take-band").value));
  }

  get isOpen() {
    return this.take !== null;
  }

  /** Shows a take of the kept ones, where the server has it; whether it does. `keepsPlace`: it goes on where the one
   * before it is. */
  async open(id, keepsPlace = false) {
    const asked = (this.asked = Symbol(id));
    const take = await this.fetched(id);
    if (asked !== this.asked) return true; // another was opened, or none is wanted any more
    const entry = this.takes.list.find((kept) => kept.id === id);
    if (!take || take.isEmpty || !entry) return false;
    this.show(take, entry, keepsPlace && this.isOpen);
    return true;
  }

  async fetched(id) {
    for (let tries = 0; tries < TRIES; tries++) {
      try {
        const answer = await fetch(this.addressOf(id, "take"));
        if (answer.ok) return new Take(await answer.json());
      } catch {
        return null;
      }
      await new Promise((resolve) => setTimeout(resolve, TRY_MILLISECONDS));
    }
    return null;
  }

  show(take, entry, keepsPlace) {
    const focusMoves = !this.isOpen && document.activeElement === $("start");
    this.callOff();
    this.take = take;
    this.entry = entry;
    this.bar = null;
    this.roll.show(take, keepsPlace);
    this.layChart();
    $("take-name").value = entry.name ?? "";
    $("take-name").placeholder = new Date(entry.at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    $("take-by").textContent = take.model;
    this.say("");
    this.offerBands();
    this.offerFiles();
    $("take-view").hidden = false;
    document.querySelector(".screen").classList.add("reviewing");
    this.roll.resize();
    this.playback.load(take, keepsPlace ? Math.min(take.frames, this.playback.position) : 0);
    if (focusMoves) $("take-new").focus();
  }

  close() {
    this.asked = null;
    if (!this.isOpen) return;
    this.callOff();
    const focusMoves = $("take-view").contains(document.activeElement);
    this.playback.pause();
    this.take = null;
    $("take-view").hidden = true;
    document.querySelector(".screen").classList.remove("reviewing");
    if (focusMoves) $("start").focus();
  }

  offer(models) {
    this.models = models;
    if (this.isOpen) this.offerBands();
  }

  offerBands() {
    const others = this.models.filter((name) => name !== this.take.model);
    $("take-others").hidden = !others.length;
    $("take-band").replaceChildren(...others.map((name) => new Option(name)));
  }

  async offerFiles() {
    const { id } = this.entry;
    for (const form of FORMS) $(`take-${form}`).href = this.addressOf(id, form);
    const hasSound = await this.exists(this.addressOf(id, "wav"));
    if (this.entry.id === id) $("take-wav").classList.toggle("away", !hasSound);
  }

  rename(name) {
    this.entry = this.takes.rename(this.entry.id, name) ?? this.entry;
  }

  /** The same melody with another band: a take that is there already, or one that the server plays now. */
  async retake(model) {
    if (this.making) return;
    const { id, name, of = id } = this.entry;
    const known = this.takes.list.find((kept) => kept.model === model && (kept.of ?? kept.id) === of);
    if (known && (await this.open(known.id, true))) return;
    const making = (this.making = new AbortController());
    $("take-retake").setAttribute("aria-disabled", "true");
    this.say(`${model} plays to your melody…`);
    const address = `api/sessions/${encodeURIComponent(id)}/retake?model=${encodeURIComponent(model)}`;
    const { session, error } = await asked(address, making.signal);
    if (making !== this.making) return;
    this.callOff();
    if (!session) {
      this.say(error ?? FAILED);
      return;
    }
    this.takes.add({ id: session, model, at: Date.now(), of, ...(name ? { name } : {}) });
    this.ontakes();
    if (await this.open(session, true)) this.say(`Now with ${model}.`);
  }

  /** Nobody waits for the retake any more; the server stops it. */
  callOff() {
    this.making?.abort();
    this.making = null;
    $("take-retake").removeAttribute("aria-disabled");
  }

  say(text) {
    $("take-said").textContent = text;
  }

  toggle() {
    if (this.playback.playing) this.playback.pause();
    else this.playback.play();
    this.roll.follows = true;
  }

  pause() {
    this.playback.pause();
  }

  seek(frame) {
    this.playback.seek(frame);
    this.roll.reveal(this.playback.position);
    this.roll.follows = true;
  }

  step() {
    this.playback.step();
  }

  paint() {
    if (!this.isOpen) return;
    this.roll.draw();
    this.showTime();
    this.markBar();
  }

  /** For who cannot see it, where it begins, stops or is moved; not while it plays. */
  showPlace() {
    const { playback, take } = this;
    $("take-play").textContent = playback.playing ? "Pause" : "Play again";
    if (!take) return;
    const frame = Math.min(take.frames - 1, Math.floor(playback.position));
    const { bar, start } = take.meter.place(frame);
    const chord = chordName(take.symbolAt(frame)).text || "no chord";
    $("take-roll").ariaValueNow = Math.floor(playback.position);
    $("take-roll").ariaValueText = `bar ${bar + 1}, beat ${beatName(frame - start)}, ${chord}`;
  }

  showTime() {
    const { time, seconds } = this.take;
    const text = `${clockText(time.timeOf(this.playback.position))} / ${clockText(seconds)}`;
    if ($("take-time").textContent !== text) $("take-time").textContent = text;
  }

  layChart() {
    $("take-chart").replaceChildren(...this.take.chart.map(barOf));
    $("take-chart").scrollTop = 0;
  }

  markBar() {
    const { bar } = this.take.meter.place(Math.min(this.take.frames - 1, Math.floor(this.playback.position)));
    if (bar === this.bar) return;
    const chart = $("take-chart");
    chart.children[this.bar]?.removeAttribute("aria-current");
    this.bar = bar;
    const cell = chart.children[bar];
    if (!cell) return;
    cell.setAttribute("aria-current", "true");
    const above = cell.offsetTop < chart.scrollTop;
    const below = cell.offsetTop + cell.offsetHeight > chart.scrollTop + chart.clientHeight;
    if (above || below) chart.scrollTop = cell.offsetTop;
  }
}

async function asked(address, signal) {
  try {
    return await (await fetch(address, { method: "POST", signal })).json();
  } catch {
    return {};
  }
}

/** A bar of the chart: for the eye, and in words. */
function barOf({ number, chords }) {
  const bar = document.createElement("li");
  const words = chords.map(({ sym, beat, goesOn }) => {
    const name = sym ? chordName(sym).text : "no chord";
    return goesOn ? `${name} goes on` : name + (beat === "1" ? "" : ` on beat ${beat}`);
  });
  const eye = document.createElement("span");
  eye.ariaHidden = "true";
  eye.append(span("bar", number), ...chords.map(cellOf));
  bar.append(span("unseen", `Bar ${number}: ${words.join(", ")}`), eye);
  return bar;
}

function cellOf({ sym, beat, goesOn }) {
  const cell = span(goesOn ? "goes-on" : "begins", sym ? chordName(sym).text : "–");
  if (beat !== "1") cell.append(span("beat", beat));
  return cell;
}

function span(className, textContent) {
  return Object.assign(document.createElement("span"), { className, textContent });
}
