const NOTE_OFF = 0x80;
const NOTE_ON = 0x90;
const CONTROL = 0xb0;
const SUSTAIN = 64;
const ALL_SOUND_OFF = 120;
const ALL_NOTES_OFF = 123;
const CHORD_VELOCITY = 76;

/**
 * Web MIDI in and out. Callbacks: onnote(pitch, velocity, stamp), velocity 0 for a release; onpedal(down, stamp);
 * onports() when devices come or go; onlost() when an input in use is gone.
 */
export class Midi {
  constructor(clock) {
    this.clock = clock;
    this.inputId = "";
    this.outputId = "";
    this.channel = 0;
  }

  static get supported() {
    return Boolean(navigator.requestMIDIAccess);
  }

  /** Whether the page may use MIDI without asking. */
  static async allowed() {
    try {
      return (await navigator.permissions.query({ name: "midi" })).state === "granted";
    } catch {
      return false;
    }
  }

  /** Asks the browser; throws when it is refused. */
  async open() {
    this.access = await navigator.requestMIDIAccess();
    this.access.onstatechange = (event) => this.changed(event.port);
    this.listen();
  }

  changed(port) {
    if (port?.type === "input" && port.state === "disconnected" && this.uses(port)) this.onlost();
    this.listen();
    this.onports();
  }

  get inputs() {
    return this.ports("inputs");
  }

  get outputs() {
    return this.ports("outputs");
  }

  ports(kind) {
    return this.access ? [...this.access[kind].values()].filter((port) => port.state !== "disconnected") : [];
  }

  uses(input) {
    return !this.inputId || input.id === this.inputId;
  }

  listen() {
    for (const input of this.inputs) {
      input.onmidimessage = this.uses(input) ? (event) => this.received(event) : null;
    }
  }

  choose({ midiInput, midiOutput, midiChannel }) {
    if (midiInput !== this.inputId) this.onlost();
    if (midiOutput !== this.outputId) this.panic();
    this.inputId = midiInput;
    this.outputId = midiOutput;
    this.channel = midiChannel - 1;
    this.listen();
  }

  received({ data, timeStamp }) {
    const kind = data[0] & 0xf0;
    const stamp = timeStamp || performance.now();
    if (kind === NOTE_ON || kind === NOTE_OFF) this.onnote(data[1], kind === NOTE_ON ? data[2] : 0, stamp);
    else if (kind === CONTROL && data[1] === SUSTAIN) this.onpedal(data[2] >= 64, stamp);
    else if (kind === CONTROL && data[1] >= ALL_SOUND_OFF) this.onlost();
  }

  get output() {
    return this.outputId ? this.outputs.find((port) => port.id === this.outputId) : undefined;
  }

  strike(pitches, time, before) {
    const stamp = this.clock.stampOf(time);
    this.sendNotes(NOTE_OFF, before, 0, stamp);
    this.sendNotes(NOTE_ON, pitches, CHORD_VELOCITY, stamp);
    return pitches;
  }

  fade(pitches, time) {
    this.sendNotes(NOTE_OFF, pitches, 0, this.clock.stampOf(time));
  }

  /** What was sent cannot be called back: the chord is ended and the one before it begun again. */
  undo(pitches, before) {
    this.sendNotes(NOTE_OFF, pitches, 0);
    this.sendNotes(NOTE_ON, before, CHORD_VELOCITY);
  }

  sendNotes(kind, pitches, velocity, stamp) {
    const { output } = this;
    for (const pitch of (output && pitches) ?? []) output.send([kind | this.channel, pitch, velocity], stamp);
  }

  panic() {
    for (const output of this.outputs) {
      for (let channel = 0; channel < 16; channel++) {
        output.send([CONTROL | channel, ALL_NOTES_OFF, 0]);
        output.send([CONTROL | channel, ALL_SOUND_OFF, 0]);
      }
    }
  }
}
