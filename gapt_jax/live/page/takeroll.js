import { FRAMES_PER_BEAT } from "./clock.js";
import { Meter } from "./meter.js";
import { Roll } from "./roll.js";

const FRAME_WIDTH = 11;
const NARROW_FRAME_WIDTH = 9;
const EDGE = 36; // left of the first frame and right of the last
const BEHIND = 0.35; // share of the picture left of the playhead while it plays
const DRAGGED = 4; // pixels from which on a press is no click
const NOTHING = { runs: [], intro: [], imagined: [], chords: new Map(), commitUntil: Infinity };

/** A take in the place of a session. */
class Shown {
  constructor(playback) {
    this.playback = playback;
    this.show(null);
  }

  show(take) {
    this.playing = take !== null;
    this.frames = take?.frames ?? 0;
    this.plan = take ? { ...NOTHING, runs: take.runs, chords: take.chords } : NOTHING;
    this.melody = { notes: take?.notes ?? [] };
    this.meter = take?.meter ?? new Meter(4);
  }

  get position() {
    return this.playback.position;
  }
}

/** First frame in sight, within a take that is shown whole. */
export function scrolled(first, frames, span) {
  return Math.max(0, Math.min(first, frames - span));
}

/** A whole take, to be scrolled by wheel and pointer and walked through by keys. Callbacks: onseek(frame), ontoggle(). */
export class TakeRoll extends Roll {
  constructor(canvas, playback) {
    super(canvas, new Shown(playback), { values: { imagined: false } });
    this.playback = playback;
    this.first = 0;
    this.follows = true;
    this.listen();
  }

  show(take, keepsPlace) {
    this.session.show(take);
    if (!keepsPlace) this.first = 0;
    this.follows = true;
    this.clear();
    for (const { p } of take.notes) this.include(p);
    for (const { pitches } of take.runs) for (const pitch of pitches) this.include(pitch);
    this.canvas.ariaValueMax = take.frames;
    this.shown = null;
  }

  get heardUntil() {
    return Infinity;
  }

  place() {
    const { frames } = this.session;
    this.step = this.narrow ? NARROW_FRAME_WIDTH : FRAME_WIDTH;
    this.span = (this.width - 2 * EDGE) / this.step;
    this.now = this.session.position;
    if (this.follows && this.playback?.playing) this.follow();
    this.first = scrolled(this.first ?? 0, frames, this.span);
    this.origin = this.first - EDGE / this.step;
    this.end = Math.min(frames, this.origin + this.width / this.step);
    this.placeRows();
  }

  /** With reduced motion the picture turns like a page. */
  follow() {
    if (!this.still.matches) this.first = this.now - BEHIND * this.span;
    else if (this.now < this.first || this.now > this.first + this.span) this.first = this.now;
  }

  /** Brings a frame into sight. */
  reveal(frame) {
    if (frame < this.first) this.first = frame - FRAMES_PER_BEAT;
    if (frame > this.first + this.span) this.first = frame - this.span + FRAMES_PER_BEAT;
    this.shown = null;
  }

  /** Whether there was anything to scroll. */
  scrollBy(pixels) {
    const before = this.first;
    this.first = scrolled(this.first + pixels / this.step, this.session.frames, this.span);
    this.follows = false;
    this.shown = null;
    return this.first !== before;
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => {
      const by = Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.deltaY;
      if (!event.ctrlKey && this.scrollBy(event.deltaMode ? by * 40 : by)) event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.grip = { from: event.clientX, at: event.clientX, isDrag: false };
    });
    canvas.addEventListener("pointermove", (event) => this.grip && this.drag(event.clientX));
    canvas.addEventListener("pointerup", (event) => this.letGo(event));
    canvas.addEventListener("pointercancel", () => (this.grip = null));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  drag(x) {
    const { grip } = this;
    grip.isDrag ||= Math.abs(x - grip.from) >= DRAGGED;
    if (grip.isDrag) this.scrollBy(grip.at - x);
    if (grip.isDrag) grip.at = x;
  }

  letGo(event) {
    const { grip } = this;
    this.grip = null;
    if (!grip || grip.isDrag) return;
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    this.onseek(Math.round(this.origin + x / this.step));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const to = this.target(event.key);
    if (to === null && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation(); // Space begins a take elsewhere
    if (to !== null) this.onseek(to);
    else if (!event.repeat) this.ontoggle();
  }

  /** The frame that a key leads to: beats by arrows, bars by pages. */
  target(key) {
    const { meter, frames } = this.session;
    const at = Math.round(this.session.position);
    const { start, beats } = meter.place(at);
    const bar = beats * FRAMES_PER_BEAT;
    const steps = {
      ArrowLeft: at - FRAMES_PER_BEAT, ArrowDown: at - FRAMES_PER_BEAT,
      ArrowRight: at + FRAMES_PER_BEAT, ArrowUp: at + FRAMES_PER_BEAT,
      PageUp: start + bar, PageDown: at > start ? start : meter.place(start - 1).start,
      Home: 0, End: frames,
    };
    return key in steps ? Math.min(frames, Math.max(0, steps[key])) : null;
  }
}
