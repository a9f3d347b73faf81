import { Band } from "./band.js";
import { Clock, FRAMES_PER_BEAT, frameSeconds, startTicker } from "./clock.js";
import { STYLES } from "./comping.js";
import { Demo } from "./demo.js";
import { Keys, isWriting } from "./keys.js";
import { labelOf, readLayout } from "./layout.js";
import { troubleOf } from "./link.js";
import { Midi } from "./midi.js";
import { Player } from "./player.js";
import { Roll } from "./roll.js";
import { Session } from "./session.js";
import { Settings } from "./settings.js";
import { Socket } from "./socket.js";
import { CHORD_TIMBRES, MELODY_TIMBRES, Sound } from "./sound.js";
import { showTakes } from "./shelf.js";
import { Study } from "./study.js";
import { Taps } from "./tap.js";
import { Takes } from "./takes.js";
import { TakeView } from "./takeview.js";

const TICKER_MILLISECONDS = 25;
const NOTICE_MILLISECONDS = 6000;
const FLASH_MILLISECONDS = 120;
const HEALTH_MILLISECONDS = 1000;
const OF_SPACE = "button, input, select, summary, a, dialog, #take-chart"; // what Space is for already
const TAP_KEY = "KeyB";
const HANDS = "The letter keys and the piano below work.";

const $ = (id) => document.getElementById(id);
const same = (names) => names.map((name) => [name, name[0].toUpperCase() + name.slice(1)]);

const context = new AudioContext({ latencyHint: "interactive" });
const clock = new Clock(context);
const sound = new Sound(context);
const midi = new Midi(clock);
const socket = new Socket();
const settings = new Settings($("settings"), changed);
settings.fill("melodyTimbre", same(MELODY_TIMBRES));
settings.fill("chordTimbre", same(CHORD_TIMBRES));
settings.fill("comping", Object.entries(STYLES));
const session = new Session({ socket, clock, sound, midi, settings });
const player = new Player(sound, session);
const demo = new Demo({ session, player, settings });
const keys = new Keys($("keys"), player);
const band = new Band(session, player, keys);
const roll = new Roll($("roll"), session, settings);
const takes = new Takes();
const style = () => settings.values.comping;
const takeView = new TakeView({ sound, clock, style, takes, addressOf, exists });
const mostAhead = new Map(); // frames, by model
const study = new Study({ consent: $("consent"), dialog: $("questionnaire") });

// Settings

function changed(name) {
  const names = [name];
  if (name === "model") names.push(...boundByModel());
  const { lookahead_frames: ahead, commit_frames: commit } = settings.values;
  if (commit > ahead) {
    settings.set({ commit_frames: ahead });
    names.push("commit_frames");
  }
  session.change(names);
  applySettings();
}

/** A plan may be as long as the model allows. The names of what has changed with it. */
function boundByModel() {
  const bounded = ["lookahead_frames", "commit_frames"];
  const before = { ...settings.values };
  const most = mostAhead.get(before.model);
  if (most) for (const name of bounded) settings.bound(name, most);
  return bounded.filter((name) => settings.values[name] !== before[name]);
}

function applySettings() {
  sound.set(settings.values);
  midi.choose(settings.values);
  document.documentElement.classList.toggle("engineer", settings.values.engineer);
  $("imagined-legend").hidden = !(settings.values.imagined && settings.values.engineer);
  roll.shown = null;
}

// A field that was set with the pointer, or left with Enter, gives the letter keys back to the piano.
let usesPointer = false;
window.addEventListener("pointerdown", () => (usesPointer = true), true);
window.addEventListener("keydown", () => (usesPointer = false), true);
$("settings").addEventListener("change", (event) => usesPointer && event.target.blur());
$("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  document.activeElement?.blur();
});

// Status line

let noticed = "";
let noticeTimer;
let tried = false;
let wasDemo = false;

function notice(text) {
  noticed = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(clearNotice, NOTICE_MILLISECONDS);
  showStatus();
}

function clearNotice() {
  noticed = "";
  showStatus();
}

function showStatus() {
  const isOpen = session.link === "open";
  $("link-light").classList.toggle("on", isOpen);
  for (const id of ["start", "demo"]) $(id).setAttribute("aria-disabled", String(!isOpen));
  const trouble = tried ? troubleOf(session.link, session.playing) : "";
  write("status-text", statusText());
  write("trouble", session.playing ? trouble : "");
  write("invitation", (!session.playing && trouble) || invitation());
}

function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function invitation() {
  if (session.phase === "stopped") return session.ending || (wasDemo ? "Now you: play a melody." : "Once more?");
  return "Play a melody. The band plans its chords ahead and joins in.";
}

function statusText() {
  if (!tried) return "Connecting…";
  if (session.link !== "open") return session.link === "lost" ? "No server" : "The server does not answer";
  if (noticed) return noticed;
  if (session.phase === "starting") return "Starting…";
  if (!session.playing) return "Ready";
  if (context.state === "running") return demo.on ? "Demo. Any key of yours takes over" : "Playing";
  return "The browser holds the sound back. Press any key.";
}

context.onstatechange = showStatus;
socket.onopen = () => {
  tried = true;
  showStatus();
};
socket.onclose = () => {
  tried = true;
  if (session.phase === "starting") session.enter("idle");
  showStatus();
};
session.onmodels = (models) => {
  const names = models.map(({ name }) => name);
  settings.fill("model", names.map((name) => [name, name]));
  takeView.offer(names);
  for (const { name, lookahead_frames: most } of models) mostAhead.set(name, most);
  boundByModel();
  offerLastTake();
  showShelf();
};
session.oncontrols = (controls) => {
  boundByModel();
  settings.set(controls);
  applySettings();
};

// Study

session.onerror = (text) => (study.asking ? study.fail(text) : notice(text));
session.onstudy = (found) => {
  study.set(found);
  document.body.classList.toggle("studied", study.on);
};
session.onanswered = () => study.answered();
study.onsubmit = start;
study.onanswers = (answers) => {
  if (socket.connected) socket.send({ type: "answers", session: session.id, answers });
  else study.fail(troubleOf("lost", false));
};
study.ondone = () => {
  const { options, selectedIndex } = settings.form.elements.model;
  const next = options[selectedIndex + 1]?.value;
  if (next) choose(next);
  $("start").textContent = next ? "Next take" : "Again";
  $("start").focus();
};
// Every participant begins with the first model.
$("consent").elements.participant.addEventListener("change", () => {
  choose(settings.form.elements.model.options[0].value);
});

function choose(model) {
  settings.set({ model });
  boundByModel();
}

// Start and stop

function start() {
  if (session.link !== "open") {
    socket.retryNow();
    return;
  }
  if (session.playing || session.phase === "starting" || !study.check()) return;
  context.resume();
  session.begin(study.said);
}

function hearDemo() {
  if (session.playing || session.phase === "starting") return;
  if (session.link === "open") demo.begin();
  start();
}

/** The demo becomes the player's own take. */
function takeOver() {
  demo.handOver();
  wasDemo = false;
  if (session.playing) takes.rename(session.id, "");
  showStatus();
}

function panic() {
  if (demo.on) takeOver();
  player.releaseAll();
  sound.panic();
  session.silence();
  midi.panic();
  takeView.pause();
}

session.onphase = () => {
  const { phase, playing } = session;
  if (playing) {
    wasDemo = demo.on;
    demo.rewind();
  } else if (phase !== "starting") {
    demo.end();
  }
  showStatus();
  const named = wasDemo ? { name: "Demo" } : {};
  const called = wasDemo ? "The demo" : "Download";
  const focusMoves = (playing ? ["start", "demo"] : ["stop"]).includes(document.activeElement?.id);
  $("welcome").hidden = playing;
  $("transport").classList.toggle("away", !playing);
  $("beats").classList.toggle("away", !playing);
  if (playing) roll.clear();
  if (playing) $("downloads").classList.add("away");
  if (playing && !study.on) takes.add({ id: session.id, model: session.model, at: Date.now(), ...named });
  band.clear();
  if (focusMoves) $(playing ? "stop" : "start").focus();
  settings.form.elements.model.disabled = study.on && playing;
  settings.form.elements.intro_frames.disabled = playing;
  if (phase === "stopped") (session.ending ? offerKept : offerDownloads)(session.id, called);
  if (phase === "stopped" && session.recorded) study.ask();
  if (phase === "starting") takeView.close();
  if (phase === "stopped" && !study.on) showShelf();
  if (phase === "stopped" && !study.on && !session.ending) takeView.open(session.id);
  roll.shown = null;
};

function showShelf() {
  showTakes($("takes"), study.on ? [] : takes.list, addressOf, exists, openTake);
}

async function openTake(id) {
  if (session.playing || session.phase === "starting") return notice("Stop first, then open a take.");
  if (!(await takeView.open(id))) return notice("The server cannot show that take any more.");
  window.scrollTo(0, 0);
  $("take-play").focus({ preventScroll: true });
}

takeView.onnew = () => {
  takeView.say(troubleOf(session.link, false));
  start();
};
takeView.ontakes = showShelf;

async function offerDownloads(id, called) {
  for (const kind of ["mid", "json", "wav"]) $(`get-${kind}`).href = addressOf(id, kind);
  if (session.phase === "stopped") $("start").textContent = wasDemo ? "Start" : "Again";
  $("downloads-of").textContent = called;
  $("downloads").classList.remove("away");
  $("get-json").hidden = study.on;
  $("get-wav").classList.toggle("away", !(await exists(addressOf(id, "wav"))));
}

/** The take of before a reload, where the server still has it. */
function offerLastTake() {
  if (session.phase === "idle" && !study.on && takes.last) offerKept(takes.last.id, "Your last take");
}

async function offerKept(id, called) {
  const { phase } = session;
  if ((await exists(addressOf(id, "mid"))) && session.phase === phase) offerDownloads(id, called);
}

function addressOf(id, kind) {
  return `api/sessions/${encodeURIComponent(id)}.${kind}`;
}

async function exists(address) {
  try {
    return (await fetch(address, { method: "HEAD" })).ok;
  } catch {
    return false;
  }
}

$("start").addEventListener("click", start);
$("demo").addEventListener("click", hearDemo);
$("stop").addEventListener("click", () => session.stop());
$("forget").addEventListener("click", () => session.forget());
$("panic").addEventListener("click", panic);
$("octave-down").addEventListener("click", () => keys.shift(-1));
$("octave-up").addEventListener("click", () => keys.shift(1));
window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") panic();
  if (event.code !== "Space" || event.repeat || event.target.closest?.(OF_SPACE)) return;
  event.preventDefault();
  if (session.playing) session.stop();
  else if (session.phase !== "starting") start();
});

// Tempo by tapping: set as by hand

const taps = new Taps();

function tap({ timeStamp }) {
  const bpm = taps.tap(timeStamp);
  if (bpm === null) return;
  const field = settings.form.elements.bpm;
  field.value = bpm;
  field.dispatchEvent(new Event("change"));
}

$("tap").addEventListener("pointerdown", tap);
$("tap").addEventListener("click", (event) => {
  if (event.detail) event.target.blur(); // else Space would tap and not start
  else tap(event); // by the keyboard
});
window.addEventListener("keydown", (event) => {
  if (event.code === TAP_KEY && !event.repeat && !isWriting(event)) tap(event);
});

// Labels of keys by the keyboard's own layout

async function labelKeys() {
  const layout = await readLayout();
  const called = (code) => labelOf(code, layout);
  keys.setLabels(layout);
  for (const element of document.querySelectorAll("[data-code]")) element.textContent = called(element.dataset.code);
  const [first, last, down, up] = ["KeyA", "Semicolon", "KeyZ", "KeyX"].map(called);
  label("keys", `Piano. The keys ${first} to ${last} play, ${down} and ${up} change the octave.`);
  label("octave-down", `Octave down (${down})`);
  label("octave-up", `Octave up (${up})`);
}

const label = (id, text) => $(id).setAttribute("aria-label", text);
window.addEventListener("focus", labelKeys); // the layout may have been changed elsewhere

// Browsers start audio, and pause it, as they like; any key or touch brings it back.
for (const type of ["pointerdown", "keydown"]) window.addEventListener(type, () => context.resume(), true);

// MIDI

async function openMidi() {
  if (midi.access) return;
  try {
    await midi.open();
    midi.onports();
  } catch {
    $("midi-text").textContent = `MIDI was not allowed. ${HANDS}`;
  }
}

midi.onports = () => {
  const named = (ports) => ports.map(({ id, name }) => [id, name ?? id]);
  settings.fill("midiInput", [["", "Any device"], ...named(midi.inputs)]);
  settings.fill("midiOutput", [["", "Nowhere"], ...named(midi.outputs)]);
  midi.choose(settings.values);
  $("midi-light").classList.toggle("on", midi.inputs.length > 0);
  $("midi-text").textContent = midi.inputs.map(({ name }) => name).join(", ") || "No MIDI device; letter keys";
  $("connect-midi").classList.add("away");
};

let flashTimer;
midi.onnote = (pitch, velocity, stamp) => {
  if (velocity) player.press(pitch, velocity, stamp);
  else player.release(pitch, stamp);
  $("midi-light").classList.add("flash");
  clearTimeout(flashTimer);
  flashTimer = setTimeout(() => $("midi-light").classList.remove("flash"), FLASH_MILLISECONDS);
};
midi.onpedal = (down, stamp) => player.setPedal(down, stamp);
midi.onlost = () => player.releaseAll();
$("connect-midi").addEventListener("click", openMidi);

player.onpress = () => {
  if (demo.on) takeOver();
};
player.onkeys = () => {
  band.markKeys();
  if (session.playing) for (const pitch of player.held) roll.include(pitch);
};
session.onplan = () => roll.includePlan();

// Health: round trip against the time of a frame

let suggested = null;

function showHealth() {
  $("late").textContent = session.latePlans;
  $("underruns").textContent = session.audio.underruns;
  const p95 = session.latency.quantile(0.95);
  if (p95 === null) return;
  const taken = Math.max(p95, session.waiting);
  const budget = 1000 * frameSeconds(settings.values.bpm);
  const share = taken / budget;
  const [grade, mark] = share <= 0.7 ? ["good", "●"] : share <= 1 ? ["tight", "▲"] : ["slow", "■"];
  $("health").className = `health for-engineer ${grade}`;
  $("health-mark").textContent = mark;
  $("health-text").textContent = `Plans take ${Math.round(taken)} of ${Math.round(budget)} ms: ${grade}`;
  $("health-bar").style.transform = `scaleX(${Math.min(1, share)})`;
  showSuggestion(budget);
}

function showSuggestion(budget) {
  const { model, commit_frames: commit } = settings.values;
  suggested = session.latency.suggest(budget, commit, mostAhead.get(model));
  const beats = suggested / FRAMES_PER_BEAT;
  $("take").classList.toggle("away", suggested === null || suggested === settings.values.lookahead_frames);
  const text = `Look ${beats} beats ahead`;
  if ($("take").textContent === text) return;
  $("take").textContent = text;
  $("take").title = `Set the look-ahead to ${suggested} sixteenths`;
}

$("take").addEventListener("click", () => {
  settings.set({ lookahead_frames: suggested });
  changed("lookahead_frames");
  showHealth();
});

// For tests: read only

window.gaptLive = Object.freeze({
  get connected() { return socket.connected; },
  get session() { return session.id; },
  get phase() { return session.phase; },
  get link() { return session.link; },
  get range() { return [roll.low, roll.high]; },
  get hasFaded() { return session.audio.hasFaded; },
  get running() { return session.playing; },
  get frame() { return session.playing ? Math.floor(session.position) : null; },
  get rev() { return session.plan.rev; },
  get commitUntil() { return session.plan.commitUntil; },
  get chords() { return Object.fromEntries(session.plan.chords); },
  get scheduled() { return session.audio.struck; },
  get underruns() { return session.audio.underruns; },
  get latePlans() { return session.latePlans; },
  get take() { return takeView.take?.id ?? null; },
  get playback() { return { playing: takeView.playback.playing, position: takeView.playback.position }; },
  get violations() { return session.plan.violations; },
  get sent() { return { ...session.sent }; },
  get roundTrip() { return { p50: session.latency.quantile(0.5), p95: session.latency.quantile(0.95) }; },
});

function paint() {
  roll.draw();
  band.show();
  takeView.paint();
  requestAnimationFrame(paint);
}

/** Once a second: is the server there, and fast enough? */
function look() {
  session.watch();
  showStatus();
  showHealth();
}

async function open() {
  applySettings();
  startTicker(TICKER_MILLISECONDS, () => {
    demo.step();
    session.step();
    takeView.step();
  });
  setInterval(look, HEALTH_MILLISECONDS);
  socket.connect();
  labelKeys();
  paint();
  if (!Midi.supported) $("midi-text").textContent = `This browser has no MIDI. ${HANDS}`;
  else if (await Midi.allowed()) openMidi();
  else $("connect-midi").classList.remove("away");
}

open();
