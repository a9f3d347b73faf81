/** What the player does, from whatever source: heard at once, written into the melody when the band plays. */
export class Player {
  constructor(sound, session) {
    this.sound = sound;
    this.session = session;
    this.held = new Set();
    this.sustained = new Set();
    this.pedal = false;
  }

  press(pitch, velocity, stamp) {
    this.sound.press(pitch, velocity);
    this.held.add(pitch);
    this.sustained.delete(pitch);
    this.session.press(pitch, velocity, stamp);
    this.onkeys();
  }

  release(pitch, stamp) {
    if (!this.held.delete(pitch)) return;
    if (this.pedal) this.sustained.add(pitch);
    else this.end(pitch, stamp);
    this.onkeys();
  }

  end(pitch, stamp) {
    this.sound.release(pitch);
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
