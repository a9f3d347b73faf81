import { FRAMES_PER_BEAT } from "./clock.js";
import { chordName } from "./names.js";

const NO_CHORD = { sym: "", pitches: [] };
const SPOKEN_EVERY = 2500;
const LONG_NAME = 6;
const $ = (id) => document.getElementById(id);

/** The chord of the moment in large letters, the beat, and what comes next. */
export class Band {
  constructor(session, settings, player, keys) {
    Object.assign(this, { session, settings, player, keys });
    this.chord = NO_CHORD;
    this.beat = null;
    this.spokenAt = -SPOKEN_EVERY;
  }

  clear() {
    this.showChord(NO_CHORD);
  }

  /** Called for every picture; touches the page only where something changed. */
  show() {
    const { position } = this.session;
    const beat = position === null ? null : Math.floor(position / FRAMES_PER_BEAT);
    if (beat !== this.beat) this.showBeat(beat);
    if (position === null || position < 0) return;
    const planned = this.session.plan.chords.get(Math.floor(position));
    if (planned && planned !== this.chord) this.showChord(planned);
  }

  layBeats() {
    const { beats_per_bar: count } = this.settings.values;
    if ($("beats").childElementCount === count) return;
    $("beats").replaceChildren(...Array.from({ length: count }, () => document.createElement("span")));
    this.beat = null;
  }

  showBeat(beat) {
    this.beat = beat;
    const { beats_per_bar: beats } = this.settings.values;
    const index = beat === null ? -1 : ((beat % beats) + beats) % beats;
    [...$("beats").children].forEach((dot, place) => dot.classList.toggle("on", place === index));
    if (beat !== null && beat < 0) showParts({ root: String(index + 1), accidental: "", rest: "" });
    if (beat === 0) showParts(chordName(this.chord.sym));
    this.showNext();
  }

  showChord(chord) {
    const news = chord.sym !== this.chord.sym;
    this.chord = chord;
    this.markKeys();
    showParts(chordName(chord.sym));
    if (!news) return;
    this.showNext();
    this.speak();
  }

  markKeys() {
    this.keys.mark([...this.player.held], this.chord.pitches);
  }

  speak() {
    const now = performance.now();
    if (!this.chord.sym || now - this.spokenAt < SPOKEN_EVERY) return;
    this.spokenAt = now;
    $("spoken").textContent = chordName(this.chord.sym).text;
  }

  showNext() {
    const { beat, chord } = this;
    if (beat === null || beat < 0) {
      $("next").textContent = beat === null ? "" : "Count-in";
      return;
    }
    const next = this.session.plan.runs.find((run) => run.start > this.session.position && run.sym !== chord.sym);
    if (!next) {
      $("next").textContent = chord.sym ? "" : "Listening";
      return;
    }
    const beats = Math.max(1, Math.ceil(next.start / FRAMES_PER_BEAT - beat));
    const name = document.createElement("b");
    name.textContent = chordName(next.sym).text;
    $("next").replaceChildren("then ", name, ` in ${beats} beat${beats > 1 ? "s" : ""}`);
  }
}

function showParts(parts) {
  for (const part of ["root", "accidental", "rest"]) {
    const element = $(`chord-${part}`);
    if (element.textContent !== parts[part]) element.textContent = parts[part];
  }
  $("chord").classList.toggle("long", parts.root.length + parts.rest.length > LONG_NAME);
}
