import { sameChord, samePitches } from "./plan.js";

const CANNOT_UNDO_SECONDS = 0.005;
const PAD = (pitches, frame, isNew) => (isNew ? pitches : null);

/**
 * Plays the plan into a sink, at most `ahead` seconds before a frame begins. What has not begun is taken back when the
 * plan changes. Where no plan covers a frame that begins, the sounding chord is held and an underrun counted; after
 * `patience()` such frames in a row the chord fades.
 *
 * `comp(pitches, frame, isNew)` says what is struck in a frame, null where what sounds goes on.
 *
 * A sink has strike(pitches, time, before) -> handle, undo(handle, before) and fade(handle, time).
 */
export class Follower {
  constructor(clock, plan, sink, ahead, patience, comp = PAD) {
    Object.assign(this, { clock, plan, sink, ahead, patience, comp, struck: 0, underruns: 0 });
    this.reset();
  }

  reset() {
    this.next = 0;
    this.missing = 0; // frames in a row
    this.hasFaded = false;
    this.state = { pitches: [], handle: null };
    this.waiting = [];
  }

  run(now) {
    while (this.clock.timeOf(this.next) < now + this.ahead) {
      const chord = this.plan.chords.get(this.next);
      if (chord) this.follow(chord);
      else if (this.clock.timeOf(this.next) <= now) this.miss();
      else break;
      this.next++;
    }
    while (this.waiting.length && this.clock.timeOf(this.waiting[0].frame) <= now) this.waiting.shift();
  }

  miss() {
    this.underruns++;
    this.missing++;
    if (this.hasFaded || this.missing < this.patience()) return;
    this.hasFaded = true;
    this.sink.fade(this.state.handle, this.clock.timeOf(this.next));
    this.state = { pitches: [], handle: null };
  }

  follow(chord) {
    this.missing = 0;
    this.hasFaded = false;
    this.waiting.push({ frame: this.next, chord, before: this.state });
    const { pitches } = chord;
    const isNew = (pitches.length > 0 && chord.on) || !samePitches(pitches, this.state.pitches);
    const struck = this.comp(pitches, this.next, isNew);
    if (struck) this.change(pitches, struck);
  }

  /** `pitches` are the chord's, `struck` those that sound. */
  change(pitches, struck) {
    if (struck.length) this.struck++;
    const handle = this.sink.strike(struck, this.clock.timeOf(this.next), this.state.handle);
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
