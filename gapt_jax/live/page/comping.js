import { FRAMES_PER_BEAT } from "./clock.js";

const EIGHTH = FRAMES_PER_BEAT / 2;

/** Ways to play a chord, by name: what the player reads. */
export const STYLES = { pad: "Pad", beat: "On the beat", arpeggio: "Arpeggio", bass: "With bass" };

/**
 * What is struck in a frame, ending all that sounded before; null where that goes on.
 *
 * `pitches` are the decided chord's, bass first, none in silence; `step` counts frames from the bar line; `isNew` says
 * whether the chord is struck, or another one, in this frame.
 */
export function comped(style, pitches, step, isNew) {
  if (!pitches.length) return isNew ? [] : null;
  return (WAYS[style] ?? WAYS.pad)(pitches, step, isNew);
}

const WAYS = {
  pad: (pitches, step, isNew) => (isNew ? pitches : null),

  beat: (pitches, step, isNew) => (isNew || step % FRAMES_PER_BEAT === 0 ? pitches : null),

  /** Eighths: the bass on the bar line and where the chord is new, between them up the others. */
  arpeggio(pitches, step, isNew) {
    if (isNew || step === 0) return pitches.slice(0, 1);
    if (step % EIGHTH) return null;
    const others = above(pitches);
    return [others[(step / EIGHTH - 1) % others.length]];
  },

  /** The bass on the bar, the chord above it on the other beats; both where it is new there. */
  bass(pitches, step, isNew) {
    if (step < FRAMES_PER_BEAT) return isNew || step === 0 ? pitches.slice(0, 1) : null;
    if (isNew) return pitches;
    return step % FRAMES_PER_BEAT ? null : above(pitches);
  },
};

function above(pitches) {
  return pitches.length > 1 ? pitches.slice(1) : pitches;
}
