import { FRAMES_PER_BEAT } from "./clock.js";
import { chordName } from "./names.js";

const NO_CHORD = { sym: "", pitches: [] };
const SPOKEN_EVERY = 2500;
const LONG_NAME = 6;
const $ = (id) => document.getElementById(id);

/** The chord of the moment in large letters, the beat, and what comes next. */
export class Band {
  constructor(session, player, keys) {
    Object.assign(this, { session, player, keys });
    this.chord = NO_CHORD;
    this.beat = null;
    this.frame = null;
    this.said = "";
    this.spokenAt = -SPOKEN_EVERY;
  }

  clear() {
    this.showChord(NO_CHORD);
  }

  /** Called for every picture; touches the page only where something changed. */
  show() {
    const { position, plan, audio } = this.session;
    this.frame = position === null ? null : Math.floor(position);
    const beat = position === null ? null : Math.floor(position / FRAMES_PER_BEAT);
    if (beat !== this.beat) this.showBeat(beat);
    const planned = this.frame === null ? null : plan.chords.get(this.frame);
    if (planned && planned !== this.chord) this.showChord(planned);
    else if (!planned && audio.hasFaded && this.chord.sym) this.showChord(NO_CHORD);
    this.showNext();
  }

  layBeats(count) {
    if ($("beats").childElementCount === count) return;
    $("beats").replaceChildren(...Array.from({ length: count }, () => document.createElement("span")));
  }

  showBeat(beat) {
    this.beat = beat;
    const place = this.session.meter.place((beat ?? 0) * FRAMES_PER_BEAT);
    const index = beat === null ? -1 : place.beat;
    this.layBeats(place.beats);
    [...$("beats").children].forEach((dot, at) => dot.classList.toggle("on", at === index));
    if (beat !== null && beat < 0) showParts({ root: String(index + 1), accidental: "", rest: "" });
    if (beat === 0) showParts(chordName(this.chord.sym));
  }

  showChord(chord) {
    const news = chord.sym !== this.chord.sym;
    this.chord = chord;
    this.markKeys();
    showParts(chordName(chord.sym));
    if (news) this.speak();
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

  /** What comes next, or what the band does; written where it has changed. */
  showNext() {
    const { frame, chord, session } = this;
    const next = frame !== null && frame >= 0 ? session.plan.nextAfter(frame, chord.sym) : null;
    const beats = next ? ` in ${next.beats} beat${next.beats > 1 ? "s" : ""}` : "";
    const name = next ? chordName(next.sym).text : "";
    const said = next ? `then ${name}${beats}` : doing(frame, chord);
    if (said === this.said) return;
    this.said = said;
    const strong = document.createElement("b");
    strong.textContent = name;
    $("next").replaceChildren(...(next ? ["then ", strong, beats] : [said]));
  }
}

function doing(frame, chord) {
  if (frame === null) return "";
  if (frame < 0) return "Count-in";
  return chord.sym ? "" : "Listening";
}

function showParts(parts) {
  for (const part of ["root", "accidental", "rest"]) {
    const element = $(`chord-${part}`);
    if (element.textContent !== parts[part]) element.textContent = parts[part];
  }
  $("chord").classList.toggle("long", parts.root.length + parts.rest.length > LONG_NAME);
}
