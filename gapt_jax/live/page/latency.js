import { FRAMES_PER_BEAT } from "./clock.js";

const KEPT = 64;
const ENOUGH = 16;

/** Round trips in ms: the last ones, and what follows from them. */
export class Latency {
  constructor() {
    this.values = [];
  }

  add(milliseconds) {
    this.values.push(milliseconds);
    if (this.values.length > KEPT) this.values.shift();
  }

  clear() {
    this.values.length = 0;
  }

  quantile(q) {
    if (!this.values.length) return null;
    const sorted = [...this.values].sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)];
  }

  /**
   * Frames to look ahead, in whole beats: a plan is overtaken by as many frames as its round trip takes plus the one it
   * was asked in; twice that for the plan after it, and one beat to see; `longest` at most.
   * Null before enough was measured.
   */
  suggest(frameMilliseconds, commitFrames, longest = 32) {
    if (this.values.length < ENOUGH) return null;
    const overtaken = Math.ceil(this.quantile(0.95) / frameMilliseconds) + 1;
    const frames = Math.max(2 * overtaken + FRAMES_PER_BEAT, commitFrames);
    return Math.min(Math.ceil(frames / FRAMES_PER_BEAT) * FRAMES_PER_BEAT, longest);
  }
}
