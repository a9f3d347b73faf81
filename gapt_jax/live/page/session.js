import { FRAMES_PER_BEAT } from "./clock.js";
import { comped } from "./comping.js";
import { Follower } from "./follower.js";
import { Latency } from "./latency.js";
import { linkOf } from "./link.js";
import { Melody } from "./melody.js";
import { Meter } from "./meter.js";
import { Plan } from "./plan.js";

const AUDIO_AHEAD = 0.1;
const MIDI_AHEAD = 0.03;
const LEAD_IN = 0.12;
const CONTROLS = ["model", "bpm", "beats_per_bar", "temperature", "seed", "lookahead_frames", "commit_frames",
  "intro_frames", "masked"];
const RESTING = ["idle", "stopped"];
const PATIENCE_BARS = 2;
const AGAIN_MILLISECONDS = 1000;
const STRIDE = 32;
const WORDS = {
  busy: "The server is full. Try again in a while.",
  too_fast: "The server cannot take this many messages.",
};
const ENDINGS = {
  future_frame: "The server was away too long. Your take ends here.",
  no_session: "The server forgot this session. Your take ends here.",
};

/**
 * One player's time with the band. Phases: idle, starting, playing, stopped.
 * Callbacks: onphase(), onplan(), onerror(text), onmodels(models), oncontrols(controls), onstudy(study),
 * onanswered().
 */
export class Session {
  constructor({ socket, clock, sound, midi, settings }) {
    Object.assign(this, { socket, clock, sound, settings });
    this.phase = "idle";
    this.id = null;
    this.recorded = false;
    this.studied = false;
    this.ending = ""; // why the server ended the take
    this.plan = new Plan();
    this.melody = new Melody();
    this.latency = new Latency();
    this.meter = new Meter(settings.values.beats_per_bar);
    const patience = () => PATIENCE_BARS * settings.values.beats_per_bar * FRAMES_PER_BEAT;
    const comp = (...of) => this.comp(...of);
    this.audio = new Follower(clock, this.plan, sound, AUDIO_AHEAD, patience, comp);
    this.midi = new Follower(clock, this.plan, midi, MIDI_AHEAD, patience, comp);
    this.asked = null;
    this.latePlans = 0;
    this.sent = { ticks: 0, notes: 0 };
    socket.onmessage = (message) => this.receive(message);
  }

  get playing() {
    return this.phase === "playing";
  }

  /** Position in frames that the player hears now; null when the band does not play. */
  get position() {
    return this.playing ? this.clock.frameAt(this.clock.heard()) : null;
  }

  /** How long the oldest question (start, tick or ping) without an answer has waited, in ms. */
  get waiting() {
    return this.asked === null ? 0 : performance.now() - this.asked;
  }

  get link() {
    return linkOf(this.socket.connected, this.waiting);
  }

  /** Called once a second. Asks the server for a sign of life where nothing else does; a start without an answer is given
   * up. */
  watch() {
    if (this.phase === "starting" && this.link !== "open") this.enter("idle");
    if (!this.socket.connected || this.asked !== null || !RESTING.includes(this.phase)) return;
    this.asked = performance.now();
    this.socket.send({ type: "ping", t: this.asked });
  }

  enter(phase) {
    this.phase = phase;
    this.onphase();
  }

  controls(names) {
    const { values } = this.settings;
    return Object.fromEntries(names.filter((name) => values[name] !== "").map((name) => [name, values[name]]));
  }

  /** `studied` is what a study's participant says with it. */
  begin(studied) {
    this.ending = "";
    this.asked = performance.now();
    this.enter("starting");
    this.socket.send({ type: "start", ...studied, ...this.controls(CONTROLS) });
  }

  /** What is still held ends now, so that the recording is whole. */
  stop() {
    this.melody.releaseAll(this.position);
    this.sendNotes(Infinity);
    this.socket.send({ type: "stop" });
    this.end();
  }

  silence() {
    this.audio.silence();
    this.midi.silence();
  }

  end() {
    this.silence();
    this.asked = null;
    this.enter("stopped");
  }

  forget() {
    this.socket.send({ type: "reset" });
    this.countIn();
  }

  /** Sends the changed ones that are controls; a new tempo takes effect after what is already scheduled, a new metre at
   * the next bar line. */
  change(names) {
    const changed = this.controls(names.filter((name) => CONTROLS.includes(name)));
    if (this.phase === "idle") this.meter.start(this.settings.values.beats_per_bar);
    if (!this.playing || !Object.keys(changed).length) return;
    if (changed.beats_per_bar) this.meter.change(changed.beats_per_bar, Math.max(0, Math.ceil(this.position)));
    this.socket.send({ type: "set", ...changed });
    if (changed.bpm) this.clock.setTempo(changed.bpm, this.clock.now() + AUDIO_AHEAD);
  }

  /** What is struck in a frame as the player has chosen; in a study everybody hears the chords alike. */
  comp(pitches, frame, isNew) {
    const style = this.studied ? "pad" : this.settings.values.comping;
    return comped(style, pitches, frame - this.meter.place(frame).start, isNew);
  }

  press(pitch, velocity, stamp) {
    if (this.playing) this.melody.press(pitch, velocity, this.clock.frameAt(this.clock.heardAt(stamp)));
  }

  release(pitch, stamp) {
    if (this.playing) this.melody.release(pitch, this.clock.frameAt(this.clock.heardAt(stamp)));
  }

  /** Begins at frame 0 after one bar of clicks. The first tick goes out at once, so that a plan is there in time. */
  countIn() {
    const { bpm, beats_per_bar: beats } = this.settings.values;
    this.plan.clear();
    this.melody.clear();
    this.latency.clear();
    this.silence();
    this.audio.reset();
    this.midi.reset();
    const bar = (beats * 60) / bpm;
    this.meter.start(beats);
    this.clock.start(bpm, this.clock.now() + LEAD_IN + bar);
    this.nextClick = -beats;
    this.begun = performance.now();
    this.asked = null;
    this.nextTick = 0;
    this.tick(0);
    this.enter("playing");
  }

  /** Called every 25 ms: sound that is due, and what each frame boundary sends. */
  step() {
    this.clock.sync();
    if (!this.playing) return;
    const now = this.clock.now();
    this.audio.run(now);
    this.midi.run(now);
    this.click(now);
    const frame = Math.floor(this.position);
    if (frame >= this.nextTick && this.mayTick) this.tick(frame);
  }

  /** A server that does not answer is asked once in a while, so that it does not wake up to a flood. */
  get mayTick() {
    if (!this.socket.connected || this.resuming) return false;
    return this.link === "open" || performance.now() - this.lastTick > AGAIN_MILLISECONDS;
  }

  click(now) {
    const frame = this.nextClick * FRAMES_PER_BEAT;
    const time = this.clock.timeOf(frame);
    if (time > now + AUDIO_AHEAD) return;
    const { metronome } = this.settings.values;
    if (metronome || this.nextClick < 0) this.sound.click(time, this.meter.isBar(frame));
    this.nextClick++;
  }

  sendNotes(before) {
    for (const events of this.melody.take(before)) {
      this.socket.send({ type: "notes", seq: this.noteSeq++, events });
      this.sent.notes += events.length;
    }
  }

  /** In strides where many frames have passed: notes may lie only so far ahead of the last tick. */
  tick(frame) {
    for (let step = this.nextTick + STRIDE; step < frame; step += STRIDE) this.sendTick(step);
    this.sendTick(frame);
  }

  sendTick(frame) {
    this.sendNotes(frame);
    this.lastTick = performance.now();
    this.asked ??= this.lastTick;
    this.socket.send({ type: "tick", seq: this.tickSeq++, now_frame: frame, t: this.lastTick });
    this.sent.ticks++;
    this.nextTick = frame + 1;
  }

  receive(message) {
    const handler = HANDLERS[message.type];
    if (handler) handler.call(this, message);
  }
}

const HANDLERS = {
  ready({ models, study }) {
    this.studied = study !== undefined;
    this.onstudy(study);
    this.onmodels(models);
    this.asked = null;
    if (!this.playing) return;
    this.resuming = true;
    this.socket.send({ type: "start", session: this.id, ...this.controls(CONTROLS) });
  },

  started({ session, model, controls, take }) {
    const goesOn = this.resuming && session === this.id;
    this.asked = null;
    if (!this.resuming && this.phase !== "starting") {
      this.socket.send({ type: "stop" }); // it was given up
      return;
    }
    this.resuming = false;
    this.id = session;
    this.model = model;
    this.recorded = Number.isInteger(take);
    this.oncontrols(controls);
    if (goesOn) return;
    this.noteSeq = 0;
    this.tickSeq = 0;
    this.countIn();
  },

  plan(message) {
    const outdated = message.t < this.begun;
    if (!this.playing || outdated) return;
    const now = this.clock.now();
    const firstFuture = Math.max(0, Math.floor(this.clock.frameAt(now)) + 1);
    if (!this.plan.apply(message, firstFuture)) return;
    this.latency.add(performance.now() - message.t);
    this.asked = message.t < this.lastTick ? this.lastTick : null;
    if (message.late) this.latePlans++;
    this.audio.revise(now);
    this.midi.revise(now);
    this.onplan();
  },

  intro({ chords }) {
    this.plan.setIntro(chords);
  },

  error({ code, msg, fatal }) {
    const ends = this.playing && (fatal || this.resuming || code in ENDINGS);
    const text = (ends && ENDINGS[code]) || (WORDS[code] ?? msg);
    this.resuming = false;
    if (ends) {
      this.ending = text;
      this.end();
    } else if (this.phase === "starting") {
      this.asked = null;
      this.enter("idle");
    }
    this.onerror(text);
  },

  pong() {
    if (RESTING.includes(this.phase)) this.asked = null;
  },

  answered() {
    this.onanswered();
  },

  warn({ msg }) {
    this.onerror(msg);
  },
};
