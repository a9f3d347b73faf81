const EVENTS_PER_MESSAGE = 100;

/**
 * The player's melody on the grid of frames: one note at a time, the newest onset wins. Onsets and releases snap to the
 * nearest frame, a note lasts at least one frame.
 */
export class Melody {
  constructor() {
    this.clear();
  }

  clear() {
    this.notes = [];
    this.taken = 0;
    this.firstUnsent = 0;
  }

  get last() {
    return this.notes[this.notes.length - 1];
  }

  press(pitch, velocity, position) {
    if (Math.round(position) < 0) return;
    const frame = Math.max(Math.round(position), this.taken);
    const last = this.last;
    if (last && last.on === frame) this.notes.pop();
    else if (last && (last.off === null || last.off > frame)) last.off = frame;
    this.notes.push({ p: pitch, v: velocity, on: frame, off: null, sentOn: false, sentOff: false });
  }

  release(pitch, position) {
    const last = this.last;
    if (!last || last.p !== pitch || last.off !== null) return;
    last.off = Math.max(Math.round(position), last.on + 1, this.taken);
  }

  releaseAll(position) {
    if (this.last) this.release(this.last.p, position);
  }

  /** Events of the frames before `frame` that were not taken yet, in messages of a modest size. */
  take(frame) {
    const events = [];
    for (let index = this.firstUnsent; index < this.notes.length; index++) {
      this.collect(this.notes[index], frame, events);
    }
    while (this.notes[this.firstUnsent]?.sentOff) this.firstUnsent++;
    this.taken = frame;
    events.sort((a, b) => a.f - b.f || a.on - b.on);
    const messages = [];
    for (let index = 0; index < events.length; index += EVENTS_PER_MESSAGE) {
      messages.push(events.slice(index, index + EVENTS_PER_MESSAGE));
    }
    return messages;
  }

  collect(note, frame, events) {
    if (!note.sentOn && note.on < frame) {
      note.sentOn = true;
      events.push({ f: note.on, on: true, p: note.p, v: note.v });
    }
    if (note.off !== null && !note.sentOff && note.off < frame) {
      note.sentOff = true;
      events.push({ f: note.off, on: false, p: note.p, v: note.v });
    }
  }
}
