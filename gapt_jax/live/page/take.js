import { FRAMES_PER_BEAT, Timeline, frameSeconds } from "./clock.js";
import { Meter } from "./meter.js";

const QUARTERS = ["", "¼", "½", "¾"]; // of a beat

/** A take as the server hands it out: its notes, its chords as stretches {start, end, sym, pitches}, its time. */
export class Take {
  constructor({ session, model, frames, tempos, meters, notes, chords }) {
    Object.assign(this, { id: session, model, frames, notes, runs: chords });
    this.meter = meterOf(meters);
    this.time = timelineOf(tempos);
    this.chords = new Map();
    for (const run of chords) for (let frame = run.start; frame < run.end; frame++) this.chords.set(frame, run);
  }

  get seconds() {
    return this.time.timeOf(this.frames);
  }

  get isEmpty() {
    return !this.frames || !(this.notes.length || this.runs.length);
  }

  symbolAt(frame) {
    return this.chords.get(frame)?.sym ?? "";
  }

  /** Bars {number, start, end, chords}; of each bar the chord at its begin and those that follow:
   * {sym, beat, goesOn}, "" where none sounds. */
  get chart() {
    const bars = [];
    for (let start = 0, end; start < this.frames; start = end) {
      const { bar, beats } = this.meter.place(start);
      end = start + beats * FRAMES_PER_BEAT;
      bars.push({ number: bar + 1, start, end, chords: this.chordsIn(start, Math.min(end, this.frames)) });
    }
    return bars;
  }

  chordsIn(start, end) {
    const found = [];
    for (let frame = start; frame < end; frame++) {
      const sym = this.symbolAt(frame);
      const isNew = frame === 0 || sym !== this.symbolAt(frame - 1);
      if (frame === start || isNew) found.push({ sym, beat: beatName(frame - start), goesOn: !isNew });
    }
    return found;
  }
}

/** Of the beat that lies so many frames after the begin of its bar: 1, 2½. */
export function beatName(frames) {
  return `${1 + Math.floor(frames / FRAMES_PER_BEAT)}${QUARTERS[frames % FRAMES_PER_BEAT]}`;
}

export function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function meterOf([first, ...changes]) {
  const meter = new Meter(first.beats);
  for (const { f, beats } of changes) meter.change(beats, f);
  return meter;
}

function timelineOf(tempos) {
  const timeline = new Timeline();
  for (const { f, bpm } of tempos) {
    const time = timeline.segments.length ? timeline.timeOf(f) : 0;
    timeline.segments.push({ frame: f, time, seconds: frameSeconds(bpm) });
  }
  return timeline;
}
