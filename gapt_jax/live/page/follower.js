import { sameChord, samePitches } from "./plan.js";

const CANNOT_UNDO_SECONDS = 0.005;

/**
 * Plays the plan into a sink, at most `ahead` seconds before a frame begins. What has not begun is taken back when the
 * plan changes. Where no plan covers a frame that begins, the sounding chord is held and an underrun counted.
 *
 * A sink has strike(pitches, time, before) -> handle and undo(handle, before).
 */
export class Follower {
  constructor(clock, plan, sink, ahead) {
    Object.assign(this, { clock, plan, sink, ahead, struck: 0, underruns: 0 });
    this.reset();
  }

  reset() {
    this.next = 0;
    this.state = { pitches: [], handle: null };
    this.waiting = [];
  }

  run(now) {
    while (this.clock.timeOf(this.next) < now + this.ahead) {
      const chord = this.plan.chords.get(this.next);
      if (chord) this.follow(chord);
      else if (this.clock.timeOf(this.next) <= now) this.underruns++;
      else break;
      this.next++;
    }
    while (this.waiting.length && this.clock.timeOf(this.waiting[0].frame) <= now) this.waiting.shift();
  }

  follow(chord) {
    this.waiting.push({ frame: this.next, chord, before: this.state });
    const strike = chord.pitches.length > 0 && chord.on;
    if (strike || !samePitches(chord.pitches, this.state.pitches)) this.change(chord.pitches);
  }

  change(pitches) {
    if (pitches.length) this.struck++;
    const handle = this.sink.strike(pitches, this.clock.timeOf(this.next), this.state.handle);
    this.state = { pitches, handle };
  }

  /** Takes back from the first waiting frame that the plan now says differently. */
  revise(now) {
    const index = this.waiting.findIndex(({ frame, chord }) => {
      const planned = this.plan.chords.get(frame);
      return this.clock.timeOf(frame) > now + CANNOT_UNDO_SECONDS && !(planned && sameChord(planned, chord));
    });
    if (index < 0) return;
    while (this.waiting.length > index) this.undo(this.waiting.pop());
  }

  undo({ frame, before }) {
    if (this.state.handle !== before.handle) this.sink.undo(this.state.handle, before.handle);
    this.state = before;
    this.next = frame;
  }

  /** Lets the chord go at once and stays silent until the next strike. */
  silence() {
    this.sink.strike([], this.clock.now(), this.state.handle);
    this.state = { ...this.state, handle: null };
    this.waiting = [];
  }
}
