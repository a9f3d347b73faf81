// The page's modules without a browser: PAGE names a folder with a copy of them. Run by test_page_modules.py.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { test } from "node:test";

const load = (name) => import(`${pathToFileURL(process.env.PAGE)}/${name}.js`);
const { Clock, FRAMES_PER_BEAT, frameSeconds } = await load("clock");
const { Plan, sameChord } = await load("plan");
const { Follower } = await load("follower");
const { Latency } = await load("latency");
const { Melody } = await load("melody");
const { chordName } = await load("names");
const { Session } = await load("session");

const close = (found, expected) => assert.ok(Math.abs(found - expected) < 1e-9, `${found} is not ${expected}`);
const chord = (f, sym, on = true) => ({ f, sym, pitches: sym ? [sym.charCodeAt(0)] : [], on });
/** A plan of one letter a frame from `base` on; "." is silence, a small letter goes on. */
const planned = (rev, base, letters, commit) => ({
  rev,
  base_frame: base,
  commit_until: base + commit,
  chords: [...letters].map((letter, index) =>
    chord(base + index, letter === "." ? "" : letter.toUpperCase(), letter !== letter.toLowerCase())),
  melody: [],
});
const shown = (plan, from, to) => {
  const letters = [];
  for (let frame = from; frame < to; frame++) letters.push(plan.chords.get(frame)?.sym || ".");
  return letters.join("");
};

const makeClock = (latency = 0) => {
  const context = { outputLatency: latency, get currentTime() { return performance.now() / 1000; } };
  return new Clock(context);
};

test("a frame is a sixteenth note at every tempo", () => {
  for (const [bpm, seconds] of [[30, 0.5], [60, 0.25], [100, 0.15], [120, 0.125], [240, 0.0625]]) {
    close(frameSeconds(bpm), seconds);
    const clock = makeClock();
    clock.start(bpm, 10);
    close(clock.timeOf(FRAMES_PER_BEAT), 10 + 60 / bpm);
    close(clock.timeOf(-FRAMES_PER_BEAT), 10 - 60 / bpm);
    for (const frame of [-7, 0, 1, 1000, 123456]) close(clock.frameAt(clock.timeOf(frame)), frame);
    close(clock.frameAt(10 + 2.5 * seconds), 2.5);
  }
});

test("a new tempo holds from the next frame on and moves nothing before it", () => {
  const clock = makeClock();
  clock.start(120, 0);
  clock.setTempo(60, 1.01); // in frame 8
  close(clock.timeOf(8), 1);
  close(clock.timeOf(9), 1.125);
  close(clock.timeOf(10), 1.375);
  clock.setTempo(240, 1.4); // in frame 10, which ends at 1.625
  close(clock.timeOf(11), 1.625);
  close(clock.timeOf(12), 1.6875);
  close(clock.timeOf(8), 1);
  let before = -Infinity;
  for (let frame = 0; frame < 30; frame++) {
    assert.ok(clock.timeOf(frame) > before);
    before = clock.timeOf(frame);
    close(clock.frameAt(before), frame);
  }
});

test("a tempo changed twice in one frame holds as it was set last", () => {
  const clock = makeClock();
  clock.start(120, 0);
  clock.setTempo(60, 1.01);
  clock.setTempo(240, 1.02);
  close(clock.timeOf(9), 1.125);
  close(clock.timeOf(10), 1.1875);
  for (let change = 0; change < 50; change++) clock.setTempo(60 + change, clock.timeOf(11 + change) - 0.01);
  assert.ok(clock.segments.length <= 3);
});

test("what is heard lags by the latency of the output, half a second at most", () => {
  for (const [latency, seconds] of [[0, 0], [0.04, 0.04], [3, 0.5]]) {
    const clock = makeClock(latency);
    close(clock.latency(), seconds);
    assert.ok(Math.abs(clock.now() - clock.heard() - seconds) < 0.005);
    const stamp = performance.now() - 200;
    assert.ok(Math.abs(clock.heard() - clock.heardAt(stamp) - 0.2) < 0.005);
    assert.ok(Math.abs(clock.heard() - clock.heardAt(performance.now() + 60000)) < 0.005); // a stamp that cannot be
    close(clock.stampOf(clock.offset), seconds * 1000);
  }
});

test("the clock follows drift slowly and a jump at once", () => {
  let shift = 0;
  const clock = new Clock({ get currentTime() { return performance.now() / 1000 + shift; } });
  shift = 0.02;
  clock.sync();
  assert.ok(clock.offset > 0.0005 && clock.offset < 0.005);
  shift = 5;
  clock.sync();
  assert.ok(Math.abs(clock.offset - 5) < 0.005);
});

test("plans merge: what is not settled changes, what is settled does not", () => {
  const plan = new Plan();
  assert.ok(plan.apply(planned(1, 0, "AAAABBBB", 4), 0));
  assert.ok(plan.apply(planned(2, 1, "AAACCCCC", 4), 1));
  assert.equal(shown(plan, 0, 10), "AAAACCCCC.");
  assert.equal(plan.commitUntil, 5);
  assert.equal(plan.violations, 0);
  assert.ok(plan.apply(planned(3, 2, "AXCCCCDD", 4), 2)); // frame 3 was settled as A
  assert.equal(shown(plan, 2, 10), "AACCCCDD");
  assert.equal(plan.violations, 1);
});

test("only a settled chord that differs is a violation", () => {
  const plan = new Plan();
  const first = planned(1, 0, "Aaaa", 4);
  plan.apply(first, 0);
  plan.apply({ ...first, rev: 2 }, 0);
  assert.equal(plan.violations, 0);
  const again = planned(3, 0, "AaAa", 4); // struck again where it went on
  plan.apply(again, 0);
  assert.equal(plan.violations, 1);
  assert.equal(plan.chords.get(2).on, false);
  plan.apply(planned(4, 0, "Aaaa", 2), 0); // settles less than before
  assert.equal(plan.violations, 2);
  assert.equal(plan.commitUntil, 4);
});

test("plans that are not newer are dropped whole", () => {
  const plan = new Plan();
  plan.apply(planned(5, 0, "AAAA", 2), 0);
  for (const rev of [5, 4, 0]) assert.equal(plan.apply(planned(rev, 0, "BBBBBB", 6), 0), false);
  assert.equal(shown(plan, 0, 6), "AAAA..");
  assert.equal(plan.commitUntil, 2);
  assert.equal(plan.rev, 5);
  plan.clear();
  assert.ok(plan.apply(planned(1, 0, "B", 1), 0));
  assert.equal(shown(plan, 0, 2), "B.");
});

test("frames that have begun keep the chord that they began with", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "AAAAAA", 0), 0);
  plan.apply(planned(2, 1, "BBBBBB", 2), 3); // late: frames 1 and 2 have begun
  assert.equal(shown(plan, 0, 7), "AAABBBB");
});

test("a shorter plan takes back what was said of later frames, but nothing settled", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "AAAAAAAA", 6), 0);
  plan.apply(planned(2, 1, "AA", 0), 1);
  assert.equal(shown(plan, 0, 8), "AAAAAA..");
});

test("stretches begin at strikes and end at silence", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "Aa.BbBb", 0), 0);
  assert.deepEqual(plan.runs.map(({ start, end, sym }) => [start, end, sym]), [[0, 2, "A"], [3, 5, "B"], [5, 7, "B"]]);
  plan.setIntro([chord(0, "A"), chord(1, "A", false), chord(2, "")]);
  assert.deepEqual(plan.intro.map(({ start, end }) => [start, end]), [[0, 2]]);
  plan.setIntro([]);
  assert.deepEqual(plan.intro, []);
});

test("imagined notes are joined where they go on", () => {
  const plan = new Plan();
  const melody = [{ f: 3, p: 60, on: true }, { f: 4, p: 60, on: false }, { f: 6, p: 60, on: false }];
  plan.apply({ ...planned(1, 3, "A", 0), melody }, 3);
  assert.deepEqual(plan.imagined, [{ p: 60, on: 3, off: 5 }, { p: 60, on: 6, off: 7 }]);
});

test("chords are the same by symbol, pitches and strike", () => {
  assert.ok(sameChord(chord(0, "A"), chord(9, "A")));
  assert.ok(!sameChord(chord(0, "A"), chord(0, "A", false)));
  assert.ok(!sameChord(chord(0, "A"), { ...chord(0, "A"), pitches: [1, 2] }));
});

/** A follower at 120 BPM whose frame 0 begins at 0, and the list of what it sounded. */
const makeFollower = (plan, ahead = 0.1) => {
  const clock = makeClock();
  clock.start(120, 0);
  const sounded = [];
  const sink = {
    strike(pitches, time, before) {
      const handle = { pitches, time, before };
      sounded.push(handle);
      return handle;
    },
    undo(handle, before) {
      assert.equal(handle.before, before);
      sounded.splice(sounded.indexOf(handle), 1);
    },
  };
  return { follower: new Follower(clock, plan, sink, ahead), sounded };
};
const heard = (sounded) => sounded.map(({ pitches, time }) => [String.fromCharCode(...pitches), Math.round(time * 8)]);

test("strikes and silences are sounded once, at the beginning of their frames", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "AaBb.Cc.", 8), 0);
  const { follower, sounded } = makeFollower(plan);
  for (let now = -1; now < 1; now += 0.025) follower.run(now);
  assert.deepEqual(heard(sounded), [["A", 0], ["B", 2], ["", 4], ["C", 5], ["", 7]]);
  assert.equal(follower.struck, 3);
  assert.equal(follower.underruns, 0);
});

test("nothing is sounded earlier than its look-ahead", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "ABCD", 4), 0);
  const { follower, sounded } = makeFollower(plan, 0.1);
  follower.run(-0.11);
  assert.equal(sounded.length, 0);
  follower.run(-0.09);
  assert.equal(sounded.length, 1);
});

test("without a plan the chord is held and each frame counted once", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "Aa", 2), 0);
  const { follower, sounded } = makeFollower(plan);
  for (let now = 0; now < 0.76; now += 0.025) follower.run(now); // frames 2 to 6 begin
  assert.deepEqual(heard(sounded), [["A", 0]]);
  assert.equal(follower.underruns, 5);
  plan.apply(planned(2, 7, "Aab", 3), 7);
  for (let now = 0.76; now < 1.2; now += 0.025) follower.run(now);
  assert.deepEqual(heard(sounded), [["A", 0], ["A", 7], ["B", 9]]);
  assert.equal(follower.underruns, 5);
});

test("a frame is waited for until it begins", () => {
  const plan = new Plan();
  const { follower, sounded } = makeFollower(plan);
  follower.run(-0.05); // within the look-ahead of frame 0, which has no plan yet
  assert.equal(follower.underruns, 0);
  plan.apply(planned(1, 0, "A", 1), 0);
  follower.run(-0.01);
  assert.deepEqual(heard(sounded), [["A", 0]]);
});

test("what has not begun is taken back when the plan changes; what has begun stays", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "ABCDEF", 1), 0);
  const { follower, sounded } = makeFollower(plan, 0.5);
  follower.run(0);
  assert.deepEqual(heard(sounded), [["A", 0], ["B", 1], ["C", 2], ["D", 3]]);
  plan.apply(planned(2, 1, "BxYzEF", 2), 1);
  follower.revise(0.01);
  assert.deepEqual(heard(sounded), [["A", 0], ["B", 1]]);
  follower.run(0.02);
  assert.deepEqual(heard(sounded), [["A", 0], ["B", 1], ["X", 2], ["Y", 3], ["Z", 4]]);
  follower.revise(0.03); // the same plan again
  assert.equal(sounded.length, 5);
  const before = heard(sounded);
  plan.chords.set(1, chord(1, "Q")); // begun at 0.125
  follower.revise(0.13);
  assert.deepEqual(heard(sounded), before);
});

test("after silence the next strike sounds", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "AaaB", 4), 0);
  const { follower, sounded } = makeFollower(plan, 0.01);
  follower.run(0);
  follower.silence();
  for (let now = 0; now < 0.5; now += 0.025) follower.run(now);
  assert.deepEqual(sounded.map(({ pitches }) => String.fromCharCode(...pitches)), ["A", "", "B"]);
});

test("quantiles are of the last 64 round trips", () => {
  const latency = new Latency();
  assert.equal(latency.quantile(0.95), null);
  latency.add(7);
  assert.deepEqual([0.5, 0.95, 1].map((q) => latency.quantile(q)), [7, 7, 7]);
  latency.clear();
  for (let value = 100; value >= 1; value--) latency.add(value); // 64 to 1 are kept
  assert.deepEqual([0.5, 0.95, 1].map((q) => latency.quantile(q)), [32, 61, 64]);
});

test("the look-ahead that is suggested is whole beats, and longer the slower the server", () => {
  const suggested = (milliseconds, frame, commit) => {
    const latency = new Latency();
    for (let count = 0; count < 16; count++) latency.add(milliseconds);
    return latency.suggest(frame, commit);
  };
  const few = new Latency();
  for (let count = 0; count < 15; count++) few.add(1);
  assert.equal(few.suggest(125, 4), null);
  assert.equal(suggested(5, 125, 4), 8); // overtaken by 2: 2 · 2 + 4
  assert.equal(suggested(125, 125, 4), 8);
  assert.equal(suggested(126, 125, 4), 12); // by 3: 10, in whole beats
  assert.equal(suggested(400, 187.5, 4), 12); // by 4
  assert.equal(suggested(5, 125, 20), 20); // never below what is settled
  assert.equal(suggested(5000, 62.5, 4), 32);
  let before = 0;
  for (let milliseconds = 1; milliseconds < 3000; milliseconds += 37) {
    const frames = suggested(milliseconds, 125, 4);
    assert.ok(frames % FRAMES_PER_BEAT === 0 && frames >= before && frames <= 32);
    before = frames;
  }
});

test("notes snap to frames, last one at least, and the newest wins", () => {
  const melody = new Melody();
  melody.press(60, 90, -0.6); // in the count-in
  melody.press(62, 90, -0.4);
  melody.release(62, 0.1);
  melody.press(64, 80, 1.6);
  melody.press(65, 70, 1.9); // in the same frame
  melody.press(67, 60, 3.2); // while 65 is held
  melody.release(65, 4); // has ended already
  melody.release(67, 5.4);
  const spans = melody.notes.map(({ p, on, off }) => [p, on, off]);
  assert.deepEqual(spans, [[62, 0, 1], [65, 2, 3], [67, 3, 5]]);
  const events = melody.take(100).flat();
  assert.deepEqual(events.map(({ f, on, p }) => [f, on, p]), [
    [0, true, 62], [1, false, 62], [2, true, 65], [3, false, 65], [3, true, 67], [5, false, 67],
  ]);
  assert.deepEqual(melody.take(200), []);
});

test("what has been sent is never contradicted", () => {
  const melody = new Melody();
  melody.press(60, 90, 4);
  assert.deepEqual(melody.take(5), [[{ f: 4, on: true, p: 60, v: 90 }]]);
  melody.release(60, 4.2); // frame 5 is the first that is still open
  melody.press(62, 90, 4.3); // and so the note begins there
  assert.deepEqual(melody.take(5), []);
  const frames = melody.take(7).flat().map(({ f, on, p }) => [f, on, p]);
  assert.deepEqual(frames, [[5, false, 60], [5, true, 62]]);
  melody.releaseAll(6);
  assert.deepEqual(melody.take(Infinity).flat().map(({ f, on, p }) => [f, on, p]), [[7, false, 62]]);
});

test("many events go out in messages of at most 100", () => {
  const melody = new Melody();
  for (let frame = 0; frame < 130; frame++) melody.press(60 + (frame % 12), 80, frame);
  const messages = melody.take(200);
  assert.deepEqual(messages.map((events) => events.length), [100, 100, 59]);
  const frames = messages.flat().map(({ f }) => f);
  assert.deepEqual(frames, [...frames].sort((a, b) => a - b));
});

test("chord names for the eye", () => {
  const parts = (symbol) => {
    const { root, accidental, rest } = chordName(symbol);
    return [root, accidental, rest];
  };
  assert.deepEqual(parts("C"), ["C", "", ""]);
  assert.deepEqual(parts("Bb7"), ["B", "♭", "7"]);
  assert.deepEqual(parts("F#m7b5"), ["F", "♯", "m7♭5"]);
  assert.deepEqual(parts("Abmaj7/Eb"), ["A", "♭", "maj7/E♭"]);
  assert.deepEqual(parts(""), ["", "", ""]);
  assert.equal(chordName("C#dim").text, "C♯dim");
});

/** A session that plays with itself: what it sent, and a way to answer. */
const makeSession = () => {
  const sent = [];
  const socket = { connected: true, send: (message) => sent.push(message) };
  const sink = { strike: () => ({}), undo() {}, click() {} };
  const values = { bpm: 120, beats_per_bar: 4, lookahead_frames: 16, commit_frames: 4, model: "" };
  const session = new Session({ socket, clock: makeClock(), sound: sink, midi: sink, settings: { values } });
  Object.assign(session, { onphase() {}, onplan() {}, onerror() {}, onmodels() {}, oncontrols() {} });
  session.begin();
  session.receive({ type: "started", session: "one", controls: {} });
  return { session, sent };
};

test("a session counts in, ticks, and drops plans of what it has forgotten", () => {
  const { session, sent } = makeSession();
  assert.deepEqual(sent.map(({ type }) => type), ["start", "tick"]);
  assert.equal(sent[0].model, undefined);
  assert.equal(sent[1].now_frame, 0);
  const position = session.position;
  assert.ok(position < -15.9 && position > -18, `${position}`); // a bar and a moment before frame 0
  const answer = { type: "plan", ...planned(1, 0, "ABCD", 2), t: sent[1].t, late: false };
  session.receive(answer);
  assert.equal(shown(session.plan, 0, 4), "ABCD");
  assert.equal(session.latency.values.length, 1);
  assert.equal(session.waiting, 0);
  session.receive({ ...answer, rev: 2, late: true });
  assert.equal(session.latePlans, 1);
  while (performance.now() <= sent[1].t + 1); // so that the next tick has another time
  session.forget();
  assert.deepEqual(sent.map(({ type }) => type), ["start", "tick", "reset", "tick"]);
  session.receive({ ...answer, rev: 3 });
  assert.equal(session.plan.chords.size, 0);
  session.receive({ ...answer, rev: 4, t: sent[3].t });
  assert.equal(shown(session.plan, 0, 4), "ABCD");
  session.stop();
  assert.equal(session.phase, "stopped");
  assert.equal(sent.at(-1).type, "stop");
});
