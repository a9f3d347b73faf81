import { comped } from "./comping.js";

const AHEAD = 0.15;
const LEAD_IN = 0.08;
const FADE = 0.03;

/**
 * Plays a take by the page's own sound, from any frame on; `style()` names the way to play chords (comping.js).
 * Callback: onchange(), where it begins, stops or is moved.
 */
export class Playback {
  constructor(sound, clock, style) {
    Object.assign(this, { sound, clock, style, take: null, playing: false, at: 0 });
    this.sounding = [];
    this.handle = null;
  }

  /** Takes a take in, from a frame on; one that plays goes on there. */
  load(take, at = 0) {
    const goesOn = this.playing && at > 0;
    this.halt();
    this.take = take;
    this.stand(at, goesOn);
  }

  /** Position in frames that is heard now. */
  get position() {
    if (!this.playing) return this.at;
    return Math.min(this.take.frames, Math.max(this.at, this.take.time.frameAt(this.clock.heard() - this.zero)));
  }

  play() {
    const { take, clock } = this;
    if (this.at >= take.frames) this.at = 0;
    this.playing = true;
    this.zero = clock.now() + LEAD_IN - take.time.timeOf(this.at);
    this.note = nextOf(take.notes, ({ on }) => on >= this.at);
    this.frame = Math.floor(this.at);
    this.step();
    this.onchange();
  }

  pause() {
    if (!this.playing) return;
    this.halt();
    this.onchange();
  }

  halt() {
    this.at = this.position;
    this.playing = false;
    const sounding = [...this.sounding, ...(this.handle ?? [])];
    if (sounding.length) this.sound.letGo(sounding, this.clock.now(), FADE);
    this.sounding = [];
    this.handle = null;
  }

  seek(frame) {
    const goesOn = this.playing;
    this.halt();
    this.stand(frame, goesOn);
  }

  /** At a frame, from where it goes on unless nothing is left. */
  stand(frame, goesOn) {
    this.at = Math.min(this.take.frames, Math.max(0, frame));
    if (goesOn && this.at < this.take.frames) this.play();
    else this.onchange();
  }

  timeOf(frame) {
    return this.zero + this.take.time.timeOf(frame);
  }

  /** Called every 25 ms. */
  step() {
    if (!this.playing) return;
    const until = this.clock.now() + AHEAD;
    this.playNotes(until);
    this.playChords(until);
    if (this.position < this.take.frames) return;
    this.halt();
    this.onchange();
  }

  playNotes(until) {
    const { notes } = this.take;
    for (let note; (note = notes[this.note]) && this.timeOf(note.on) < until; this.note++) {
      this.sounding.push(this.sound.note(note.p, note.v, this.timeOf(note.on), this.timeOf(note.off)));
    }
    const past = this.clock.now() - 1;
    this.sounding = this.sounding.filter(({ releasedAt }) => releasedAt > past);
  }

  playChords(until) {
    for (; this.frame <= this.take.frames && this.timeOf(this.frame) < until; this.frame++) {
      const struck = this.struckIn(this.frame);
      if (!struck) continue;
      const handle = this.sound.strike(struck, this.timeOf(Math.max(this.frame, this.at)), this.handle);
      this.handle = struck.length ? handle : null;
    }
  }

  /** What is struck in a frame: the chord that sounds there is new where the take is played from there. */
  struckIn(frame) {
    const { chords, meter } = this.take;
    const run = chords.get(frame);
    const isNew = frame <= this.at || run !== chords.get(frame - 1);
    if (!run && !this.handle) return null;
    return comped(this.style(), run?.pitches ?? [], frame - meter.place(frame).start, isNew);
  }
}

function nextOf(list, isNext) {
  const index = list.findIndex(isNext);
  return index < 0 ? list.length : index;
}
