const HIGHEST = 127;
const MARGIN = 3;

/** Lowest and highest pitch in sight before a note says otherwise. */
export const FIRST_RANGE = [45, 81];

/** The range widened where a pitch is at its edge or outside. */
export function including([low, high], pitch) {
  return [
    pitch < low + 1 ? Math.max(0, pitch - MARGIN) : low,
    pitch > high - 1 ? Math.min(HIGHEST, pitch + MARGIN) : high,
  ];
}
