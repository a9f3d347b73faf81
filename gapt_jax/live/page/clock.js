export const FRAMES_PER_BEAT = 4;
export const frameSeconds = (bpm) => 60 / (bpm * FRAMES_PER_BEAT);

const SNAP_SECONDS = 0.05;
const SMOOTHING = 0.05;
const MAX_LATENCY = 0.5;

/** Frames against seconds. A tempo holds in a segment {frame, time, seconds of a frame} from its first frame on. */
export class Timeline {
  segments = [];

  timeOf(frame) {
    let index = this.segments.length - 1;
    while (index > 0 && this.segments[index].frame > frame) index--;
    const segment = this.segments[index];
    return segment.time + (frame - segment.frame) * segment.seconds;
  }

  /** Position in frames, with its fraction; below 0 during the count-in. */
  frameAt(time) {
    let index = this.segments.length - 1;
    while (index > 0 && this.segments[index].time > time) index--;
    const segment = this.segments[index];
    return segment.frame + (time - segment.time) / segment.seconds;
  }
}

/** Frames against AudioContext time. A tempo change begins a new segment at a frame boundary. */
export class Clock extends Timeline {
  constructor(context) {
    super();
    this.context = context;
    this.offset = null;
    this.sync();
  }

  /** currentTime advances in blocks of up to 10 ms; performance.now() carries it smoothly between them. */
  sync() {
    const measured = this.context.currentTime - performance.now() / 1000;
    const error = measured - this.offset;
    if (this.offset === null || Math.abs(error) > SNAP_SECONDS) this.offset = measured;
    else this.offset += SMOOTHING * error;
  }

  /** Audio time being written now. */
  now() {
    return performance.now() / 1000 + this.offset;
  }

  /** Audio time that reaches the ear now: what the player plays along with. */
  heard() {
    return this.now() - this.latency();
  }

  /** Audio time that reaches the ear at a time stamp in ms of performance.now(); at the present where that is 1 s away. */
  heardAt(stamp) {
    const age = (performance.now() - stamp) / 1000;
    return this.heard() - (Math.abs(age) < 1 ? age : 0);
  }

  latency() {
    return Math.min(this.context.outputLatency || this.context.baseLatency || 0, MAX_LATENCY);
  }

  /** performance.now() at which an audio time reaches the ear. */
  stampOf(time) {
    return (time - this.offset + this.latency()) * 1000;
  }

  start(bpm, timeOfFrameZero) {
    this.segments = [{ frame: 0, time: timeOfFrameZero, seconds: frameSeconds(bpm) }];
  }

  /** The new tempo holds from the first frame boundary after `time`. */
  setTempo(bpm, time) {
    const frame = Math.ceil(this.frameAt(time));
    const segment = { frame, time: this.timeOf(frame), seconds: frameSeconds(bpm) };
    this.segments = [...this.segments.filter((old) => old.frame < frame).slice(-2), segment];
  }
}

/** Timers of a worker are not throttled when the tab is in the background. */
export function startTicker(milliseconds, callback) {
  const source = new Blob([`setInterval(() => postMessage(0), ${milliseconds});`], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(source));
  worker.onmessage = callback;
}
