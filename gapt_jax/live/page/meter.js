import { FRAMES_PER_BEAT } from "./clock.js";

/** Metres against frames. A change holds from the next bar line on; bars go on being counted. */
export class Meter {
  constructor(beats) {
    this.start(beats);
  }

  start(beats) {
    this.segments = [{ frame: 0, beats, bar: 0 }];
  }

  /** Another number of beats a bar from the first bar line at or after a position in frames. */
  change(beats, position) {
    const { frame, bar, beats: before } = this.segmentAt(position);
    const length = before * FRAMES_PER_BEAT;
    const bars = Math.max(0, Math.ceil((position - frame) / length));
    const begin = frame + bars * length;
    const kept = this.segments.filter((segment) => segment.frame < begin);
    this.segments = [...kept, { frame: begin, beats, bar: bar + bars }];
  }

  segmentAt(position) {
    let index = this.segments.length - 1;
    while (index > 0 && this.segments[index].frame > position) index--;
    return this.segments[index];
  }

  /** Where a position in frames lies: its bar (from 0), the first frame of that, the beat in it, its beats. */
  place(position) {
    const { frame, beats, bar } = this.segmentAt(position);
    const length = beats * FRAMES_PER_BEAT;
    const bars = Math.floor((position - frame) / length);
    const start = frame + bars * length;
    return { bar: bar + bars, start, beat: Math.floor((position - start) / FRAMES_PER_BEAT), beats };
  }

  isBar(frame) {
    return this.place(frame).start === frame;
  }
}
