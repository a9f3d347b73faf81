import { FRAMES_PER_BEAT } from "./clock.js";
import { Follower } from "./follower.js";
import { Latency } from "./latency.js";
import { Melody } from "./melody.js";
import { Plan } from "./plan.js";

const AUDIO_AHEAD = 0.1;
const MIDI_AHEAD = 0.03;
const LEAD_IN = 0.12;
const CONTROLS = ["model", "bpm", "beats_per_bar", "temperature", "seed", "lookahead_frames", "commit_frames",
  "intro_frames", "masked"];
const WORDS = {
  busy: "The server is full. Try again in a while.",
  too_fast: "The server cannot take this many messages.",
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
    this.studied = {};
    this.recorded = false;
    this.plan = new Plan();
    this.melody = new Melody();
    this.latency = new Latency();
    this.audio = new Follower(clock, this.plan, sound, AUDIO_AHEAD);
    this.midi = new Follower(clock, this.plan, midi, MIDI_AHEAD);
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

  /** How long the oldest tick without an answer has waited, in ms. */
  get waiting() {
    return this.playing && this.asked !== null ? performance.now() - this.asked : 0;
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
    this.studied = studied;
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
    this.enter("stopped");
  }

  forget() {
    this.socket.send({ type: "reset" });
    this.countIn();
  }

  /** Sends the changed ones that are controls; a new tempo takes effect after what is already scheduled. */
  change(names) {
    const changed = this.controls(names.filter((name) => CONTROLS.includes(name)));
    if (!this.playing || !Object.keys(changed).length) return;
    this.socket.send({ type: "set", ...changed });
    if (changed.bpm) this.clock.setTempo(changed.bpm, this.clock.now() + AUDIO_AHEAD);
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
    this.clock.start(bpm, this.clock.now() + LEAD_IN + bar);
    this.nextClick = -beats;
    this.begun = performance.now();
    this.asked = null;
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
    if (frame >= this.nextTick && this.socket.connected && !this.resuming) this.tick(frame);
  }

  click(now) {
    const { beats_per_bar: beats, metronome } = this.settings.values;
    const time = this.clock.timeOf(this.nextClick * FRAMES_PER_BEAT);
    if (time > now + AUDIO_AHEAD) return;
    if (metronome || this.nextClick < 0) this.sound.click(time, this.nextClick % beats === 0);
    this.nextClick++;
  }

  sendNotes(before) {
    for (const events of this.melody.take(before)) {
      this.socket.send({ type: "notes", seq: this.noteSeq++, events });
      this.sent.notes += events.length;
    }
  }

  tick(frame) {
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
    this.onstudy(study);
    this.onmodels(models);
    if (!this.playing) return;
    this.resuming = true;
    this.socket.send({ type: "start", session: this.id, ...this.controls(CONTROLS) });
  },

  started({ session, controls, take }) {
    const goesOn = this.resuming && session === this.id;
    this.resuming = false;
    this.id = session;
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
    if (this.resuming && code === "no_session") {
      this.resuming = false;
      this.begin(this.studied);
      this.onerror("The server forgot the session. It begins again.");
      return;
    }
    this.onerror(WORDS[code] ?? msg);
    if (this.phase === "starting") this.enter("idle");
    else if (fatal && this.playing) this.end();
  },

  answered() {
    this.onanswered();
  },

  warn({ msg }) {
    this.onerror(msg);
  },
};
