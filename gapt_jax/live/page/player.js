/**
 * What the player does, from whatever source: heard at once, written into the melody when the band plays.
 * Callbacks: onkeys() when keys have gone down or up, onpress() before a key of the player's own goes down.
 */
export class Player {
  constructor(sound, session) {
    this.sound = sound;
    this.session = session;
    this.held = new Set();
    this.sustained = new Set();
    this.pedal = false;
  }

  /** A key of the player's own. */
  press(pitch, velocity, stamp) {
    this.onpress();
    this.begin(pitch, velocity, stamp);
  }

  /** `time`: the audio time to sound at; now where it is not given. So in `release`. */
  begin(pitch, velocity, stamp, time) {
    this.sound.press(pitch, velocity, time);
    this.held.add(pitch);
    this.sustained.delete(pitch);
    this.session.press(pitch, velocity, stamp);
    this.onkeys();
  }

  release(pitch, stamp, time) {
    if (!this.held.delete(pitch)) return;
    if (this.pedal) this.sustained.add(pitch);
    else this.end(pitch, stamp, time);
    this.onkeys();
  }

  end(pitch, stamp, time) {
    this.sound.release(pitch, time);
    this.session.release(pitch, stamp);
  }

  setPedal(down, stamp) {
    this.pedal = down;
    if (down) return;
    for (const pitch of this.sustained) this.end(pitch, stamp);
    this.sustained.clear();
  }

  releaseAll() {
    const stamp = performance.now();
    this.setPedal(false, stamp);
    for (const pitch of [...this.held]) this.release(pitch, stamp);
  }
}
