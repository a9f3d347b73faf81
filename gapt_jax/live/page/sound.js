const FOREVER = 1e9;
const CHORD_VELOCITY = 76;
const FADE_SECONDS = 0.8;
const SHORTEST_SECONDS = 0.03;
const hertz = (pitch) => 440 * 2 ** ((pitch - 69) / 12);

/** Each timbre builds its sources into `out` and says how it begins, settles and ends (time constants in s). */
const TIMBRES = {
  "electric piano": { attack: 0.002, settle: 1.4, sustain: 0, release: 0.09, level: 0.42, build: electricPiano },
  flute: { attack: 0.025, settle: 0.3, sustain: 0.75, release: 0.06, level: 0.42, build: flute },
  pluck: { attack: 0.001, settle: 9, sustain: 0, release: 0.12, level: 1.55, build: pluck },
  "warm pad": { attack: 0.09, settle: 2, sustain: 0.75, release: 0.25, level: 0.3, build: warmPad },
  organ: { attack: 0.012, settle: 1, sustain: 0.9, release: 0.05, level: 0.31, build: organ },
};
export const MELODY_TIMBRES = ["electric piano", "flute", "pluck"];
export const CHORD_TIMBRES = ["warm pad", "electric piano", "organ"];

class Voice {
  constructor(context, timbre, pitch, velocity, time, bus) {
    this.context = context;
    this.timbre = timbre;
    this.out = context.createGain();
    this.sources = timbre.build(context, hertz(pitch), velocity / 127, time, this.out);
    this.shape(timbre.level * (velocity / 127) ** 1.5, time);
    this.out.connect(bus);
    for (const source of this.sources) source.start(time);
    this.sources[0].onended = () => this.out.disconnect();
  }

  shape(peak, time) {
    const { attack, settle, sustain } = this.timbre;
    const { gain } = this.out;
    gain.value = 0;
    gain.setValueAtTime(0, time);
    gain.setTargetAtTime(peak, time, attack);
    gain.setTargetAtTime(peak * sustain, time + 5 * attack, settle);
  }

  release(time, fade = this.timbre.release) {
    this.releasedAt = time;
    this.out.gain.cancelScheduledValues(time);
    this.out.gain.setTargetAtTime(0, time, fade);
    this.stop(time + 7 * fade);
  }

  /** Undoes a release that has not begun. */
  revive() {
    this.out.gain.cancelScheduledValues(this.releasedAt);
    this.stop(FOREVER);
  }

  /** For a voice that has not begun. */
  cancel() {
    this.out.disconnect();
    this.stop(0);
  }

  stop(time) {
    for (const source of this.sources) source.stop(time);
  }
}

function oscillator(context, type, frequency, into, level = 1, detune = 0) {
  const node = context.createOscillator();
  const gain = context.createGain();
  node.type = type;
  node.frequency.value = frequency;
  node.detune.value = detune;
  gain.gain.value = level;
  node.connect(gain).connect(into);
  return { node, gain: gain.gain };
}

/** FM: a carrier bent by a body at its own pitch and by a short bright tine. */
function electricPiano(context, frequency, force, time, out) {
  const carrier = oscillator(context, "sine", frequency, out);
  const body = oscillator(context, "sine", frequency, carrier.node.frequency, frequency * 1.6 * force);
  const tine = oscillator(context, "sine", frequency * 14, carrier.node.frequency, frequency * 1.1 * force);
  body.gain.setTargetAtTime(frequency * 0.25 * force, time, 0.35);
  tine.gain.setTargetAtTime(0, time, 0.05);
  return [carrier.node, body.node, tine.node];
}

function flute(context, frequency, force, time, out) {
  const tone = oscillator(context, "sine", frequency, out);
  const edge = oscillator(context, "triangle", frequency * 2, out, 0.12 + 0.15 * force);
  const vibrato = oscillator(context, "sine", 5.2, tone.node.detune, 0);
  vibrato.gain.setTargetAtTime(9, time + 0.25, 0.3);
  return [tone.node, edge.node, vibrato.node];
}

function warmPad(context, frequency, force, time, out) {
  const filter = context.createBiquadFilter();
  filter.type = "lowpass";
  filter.Q.value = 0.5;
  filter.frequency.setValueAtTime(900 + frequency * 3, time);
  filter.frequency.setTargetAtTime(1500 + frequency * 8, time, 0.4);
  filter.connect(out);
  const voices = [-7, 6].map((detune) => oscillator(context, "sawtooth", frequency, filter, 0.4, detune).node);
  return [...voices, oscillator(context, "sine", frequency, filter, 0.7).node];
}

const DRAWBARS = new Float32Array([0, 1, 0.7, 0.35, 0.3, 0, 0.12, 0, 0.15]);

function organ(context, frequency, force, time, out) {
  const tone = oscillator(context, "sine", frequency, out, 0.8);
  tone.node.setPeriodicWave(context.createPeriodicWave(new Float32Array(DRAWBARS.length), DRAWBARS));
  return [tone.node];
}

const PLUCK_SECONDS = 2.5;
const plucked = new Map();

function pluck(context, frequency, force, time, out) {
  if (!plucked.has(frequency)) plucked.set(frequency, pluckedString(context, frequency));
  const source = context.createBufferSource();
  const filter = context.createBiquadFilter();
  filter.type = "lowpass";
  filter.frequency.value = 1200 + 7000 * force;
  source.buffer = plucked.get(frequency);
  source.connect(filter).connect(out);
  return [source];
}

/** Karplus-Strong: noise in a loop of one period that loses its brightness on every turn. */
function pluckedString(context, frequency) {
  const rate = context.sampleRate;
  const buffer = context.createBuffer(1, rate * PLUCK_SECONDS, rate);
  const samples = buffer.getChannelData(0);
  const period = rate / frequency - 0.5;
  const whole = Math.floor(period);
  const part = period - whole;
  for (let index = 0; index <= whole + 1; index++) samples[index] = Math.random() * 2 - 1;
  for (let index = whole + 2; index < samples.length; index++) {
    const near = samples[index - whole] * (1 - part) + samples[index - whole - 1] * part;
    const far = samples[index - whole - 1] * (1 - part) + samples[index - whole - 2] * part;
    samples[index] = 0.4985 * (near + far);
  }
  return buffer;
}

const ROOM_SECONDS = 1.8;

function room(context) {
  const rate = context.sampleRate;
  const length = Math.round(rate * ROOM_SECONDS);
  const echo = context.createBuffer(2, length, rate);
  for (const channel of [0, 1]) {
    const samples = echo.getChannelData(channel);
    for (let index = 0; index < length; index++) samples[index] = (Math.random() * 2 - 1) * (1 - index / length) ** 3;
  }
  const node = context.createConvolver();
  node.buffer = echo;
  return node;
}

const CEILING = -3; // dB
const RATIO = 20;
const MAKEUP = 0.6; // of what it takes from full scale a compressor gives back (Web Audio §1.19.5)

/** Presses what is louder than the ceiling towards it; the rest passes as it is. */
function limiter(context) {
  const compressor = new DynamicsCompressorNode(context, {
    threshold: CEILING, ratio: RATIO, knee: 0, attack: 0.001, release: 0.1,
  });
  const back = context.createGain();
  back.gain.value = 10 ** ((MAKEUP * CEILING * (1 - 1 / RATIO)) / 20);
  compressor.connect(back).connect(context.destination);
  return compressor;
}

/** The instruments. Keys of the player sound at once; chords and clicks at the audio time they are given. */
export class Sound {
  constructor(context) {
    this.context = context;
    this.keys = new Map();
    const wet = context.createGain();
    wet.gain.value = 0.16;
    this.out = limiter(context);
    wet.connect(room(context)).connect(this.out);
    this.melody = this.bus(wet);
    this.chords = this.bus(wet);
    this.clicks = this.bus();
    this.ringing = new Set();
  }

  bus(wet) {
    const gain = this.context.createGain();
    gain.connect(this.out);
    if (wet) gain.connect(wet);
    return gain;
  }

  /** Volumes 0–100, timbres by name. */
  set({ melodyVolume, chordVolume, clickVolume, melodyTimbre, chordTimbre }) {
    const now = this.context.currentTime;
    this.melody.gain.setTargetAtTime((melodyVolume / 100) ** 2, now, 0.02);
    this.chords.gain.setTargetAtTime((chordVolume / 100) ** 2, now, 0.02);
    this.clicks.gain.setTargetAtTime((clickVolume / 100) ** 2, now, 0.02);
    this.melodyTimbre = TIMBRES[melodyTimbre];
    this.chordTimbre = TIMBRES[chordTimbre];
  }

  press(pitch, velocity, time = this.context.currentTime) {
    this.release(pitch);
    const { context, melodyTimbre } = this;
    this.keys.set(pitch, new Voice(context, melodyTimbre, pitch, velocity, time, this.melody));
  }

  release(pitch, time = this.context.currentTime) {
    this.keys.get(pitch)?.release(time);
    this.keys.delete(pitch);
  }

  /** A note of the melody from one audio time to another. */
  note(pitch, velocity, time, until) {
    const begin = Math.max(time, this.context.currentTime);
    const voice = new Voice(this.context, this.melodyTimbre, pitch, velocity, begin, this.melody);
    voice.release(Math.max(until, begin + SHORTEST_SECONDS));
    return voice;
  }

  strike(pitches, time, before) {
    this.letGo(before, time);
    const begin = Math.max(time, this.context.currentTime);
    const voices = pitches.map(
      (pitch) => new Voice(this.context, this.chordTimbre, pitch, CHORD_VELOCITY, begin, this.chords),
    );
    for (const voice of voices) this.ringing.add(voice);
    return voices;
  }

  undo(voices, before) {
    for (const voice of voices ?? []) {
      voice.cancel();
      this.ringing.delete(voice);
    }
    for (const voice of before ?? []) {
      voice.revive();
      this.ringing.add(voice);
    }
  }

  fade(voices, time) {
    this.letGo(voices, time, FADE_SECONDS);
  }

  letGo(voices, time, fade) {
    for (const voice of voices ?? []) {
      voice.release(Math.max(time, this.context.currentTime), fade);
      this.ringing.delete(voice);
    }
  }

  click(time, accent) {
    const out = this.context.createGain();
    const { node } = oscillator(this.context, "triangle", accent ? 1760 : 1175, out);
    out.gain.setValueAtTime(accent ? 0.5 : 0.3, time);
    out.gain.setTargetAtTime(0, time + 0.004, 0.014);
    out.connect(this.clicks);
    node.onended = () => out.disconnect();
    node.start(time);
    node.stop(time + 0.15);
  }

  panic() {
    const now = this.context.currentTime;
    for (const voice of [...this.keys.values(), ...this.ringing]) voice.release(now, 0.008);
    this.keys.clear();
    this.ringing.clear();
  }
}
