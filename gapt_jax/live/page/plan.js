import { FRAMES_PER_BEAT } from "./clock.js";

const DRAWN_PAST = 64;

export function sameChord(a, b) {
  return a.sym === b.sym && a.on === b.on && samePitches(a.pitches, b.pitches);
}

export function samePitches(a, b) {
  return a.length === b.length && a.every((pitch, index) => pitch === b[index]);
}

/** The band's chords by frame. Committed frames and frames that have begun never change here. */
export class Plan {
  constructor() {
    this.violations = 0;
    this.clear();
  }

  clear() {
    this.chords = new Map();
    this.intro = [];
    this.imagined = [];
    this.runs = [];
    this.rev = -1;
    this.commitUntil = 0;
    this.end = 0;
  }

  /** Takes a plan in; false when it is not newer than the last one. `firstFuture`: the first frame not yet begun. */
  apply(message, firstFuture) {
    if (message.rev <= this.rev) return false;
    this.rev = message.rev;
    for (const chord of message.chords) this.put(chord, firstFuture);
    this.dropBeyond(message.chords);
    if (message.commit_until < this.commitUntil) this.violations++;
    this.commitUntil = Math.max(this.commitUntil, message.commit_until);
    this.imagined = asNotes(message.melody ?? []);
    this.runs = asRuns(this.chords, Math.max(firstFuture - DRAWN_PAST, 0), this.end);
    return true;
  }

  put({ f, sym, pitches, on }, firstFuture) {
    const chord = { sym, pitches, on };
    const old = this.chords.get(f);
    if (f < this.commitUntil && old) {
      if (!sameChord(old, chord)) this.violations++;
    } else if (f >= firstFuture) {
      this.chords.set(f, chord);
    }
  }

  /** A shorter plan takes back what an older, longer one said about later frames. */
  dropBeyond(chords) {
    if (!chords.length) return;
    const end = chords[chords.length - 1].f + 1;
    for (let frame = Math.max(end, this.commitUntil); frame < this.end; frame++) this.chords.delete(frame);
    this.end = Math.max(end, this.commitUntil);
  }

  /** The first other chord after a frame, and the beats until it; null where there is none. */
  nextAfter(frame, symbol) {
    const next = this.runs.find((run) => run.start > frame && run.sym !== symbol);
    return next ? { sym: next.sym, beats: Math.ceil((next.start - frame) / FRAMES_PER_BEAT) } : null;
  }

  setIntro(chords) {
    const byFrame = new Map(chords.map(({ f, sym, pitches, on }) => [f, { sym, pitches, on }]));
    this.intro = asRuns(byFrame, 0, Math.max(0, ...byFrame.keys()) + 1);
  }
}

/** Stretches {start, end, isOutside} of a note: outside is where a chord sounds that has not its pitch class. */
export function stretchesOf(pitch, start, end, chords) {
  const found = [];
  for (let frame = start; frame < end; frame++) {
    const pitches = chords.get(frame)?.pitches ?? [];
    const isOutside = pitches.length > 0 && !pitches.some((other) => other % 12 === pitch % 12);
    const last = found[found.length - 1];
    if (last?.isOutside === isOutside) last.end = Math.min(frame + 1, end);
    else found.push({ start: frame, end: Math.min(frame + 1, end), isOutside });
  }
  return found;
}

/** Chords frame by frame as stretches {start, end, sym, pitches} from strike to end, silence left out. */
function asRuns(chords, from, to) {
  const runs = [];
  let run = null;
  for (let frame = from; frame < to; frame++) {
    const chord = chords.get(frame);
    if (!chord?.pitches.length) {
      run = null;
    } else if (run && !chord.on && chord.sym === run.sym && samePitches(chord.pitches, run.pitches)) {
      run.end++;
    } else {
      run = { start: frame, end: frame + 1, sym: chord.sym, pitches: chord.pitches };
      runs.push(run);
    }
  }
  return runs;
}

function asNotes(frames) {
  const notes = [];
  for (const { f, p, on } of frames) {
    if (p === null || p === undefined || p < 0) continue;
    const last = notes[notes.length - 1];
    if (last && !on && last.p === p && last.off === f) last.off++;
    else notes.push({ p, on: f, off: f + 1 });
  }
  return notes;
}
