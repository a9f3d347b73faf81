import { FRAMES_PER_BEAT } from "./clock.js";

/**
 * "Ah! vous dirai-je, maman" ("Twinkle, twinkle, little star"): anonymous, printed in France in 1761, in the public
 * domain; written down from memory. MIDI pitches, a phrase a row.
 */
const PHRASES = [
  [60, 60, 67, 67, 69, 69, 67],
  [65, 65, 64, 64, 62, 62, 60],
  [67, 67, 65, 65, 64, 64, 62],
  [67, 67, 65, 65, 64, 64, 62],
  [60, 60, 67, 67, 69, 69, 67],
  [65, 65, 64, 64, 62, 62, 60],
];
const BEATS = [1, 1, 1, 1, 1, 1, 2]; // of a phrase's notes
const BEATS_PER_BAR = 4;
const VELOCITIES = [84, 98]; // on a bar line the second
const GAP = 0.3; // frames by which a key goes up early; the nearest frame is still the note's end
const AHEAD = 0.05; // s

/** What the tune is played with: a bar of count-in and these silent frames take less than four seconds. */
export const CONTROLS = { bpm: 120, beats_per_bar: BEATS_PER_BAR, intro_frames: 8 };

/** The tune as keys that go down (velocity > 0) and up (0): [{frame, pitch, velocity}] in order. */
export function tune() {
  const events = [];
  let beat = 0;
  for (const phrase of PHRASES) {
    phrase.forEach((pitch, index) => {
      const velocity = VELOCITIES[Number(beat % BEATS_PER_BAR === 0)];
      events.push({ frame: beat * FRAMES_PER_BEAT, pitch, velocity });
      beat += BEATS[index];
      events.push({ frame: beat * FRAMES_PER_BEAT - GAP, pitch, velocity: 0 });
    });
  }
  return events;
}

/** Plays the tune on the player's keys and stops a bar after it. Until the take ends, its settings are the tune's. */
export class Demo {
  constructor({ session, player, settings }) {
    Object.assign(this, { session, player, settings, on: false, next: 0 });
    this.events = tune();
  }

  begin() {
    this.settings.borrow(CONTROLS);
    this.on = true;
  }

  rewind() {
    if (this.on) this.player.releaseAll();
    this.next = 0;
  }

  /** Called every 25 ms: what is due sounds at its time. */
  step() {
    const { session, events } = this;
    if (!this.on || !session.playing) return;
    const until = session.clock.now() + AHEAD;
    while (this.next < events.length && session.clock.timeOf(events[this.next].frame) <= until) {
      this.play(events[this.next++]);
    }
    const end = events[events.length - 1].frame + BEATS_PER_BAR * FRAMES_PER_BEAT;
    if (session.position >= end) session.stop();
  }

  play({ frame, pitch, velocity }) {
    const time = this.session.clock.timeOf(frame);
    const stamp = this.session.clock.stampOf(time);
    if (velocity) this.player.begin(pitch, velocity, stamp, time);
    else this.player.release(pitch, stamp, time);
  }

  /** The tune ends, the take goes on. */
  handOver() {
    if (!this.on) return;
    this.on = false;
    this.player.releaseAll();
  }

  end() {
    this.handOver();
    this.settings.giveBack();
  }
}
