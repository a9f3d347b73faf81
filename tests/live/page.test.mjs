// The page's modules without a browser: PAGE names a folder with a copy of them. Run by test_page_modules.py.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { test } from "node:test";

const load = (name) => import(`${pathToFileURL(process.env.PAGE)}/${name}.js`);
const { Clock, FRAMES_PER_BEAT, frameSeconds } = await load("clock");
const { Plan, sameChord, stretchesOf } = await load("plan");
const { Follower } = await load("follower");
const { Latency } = await load("latency");
const { Melody } = await load("melody");
const { chordName } = await load("names");
const { Session } = await load("session");
const { Settings } = await load("settings");
const { cleanNumber, cleanStored } = await load("values");
const { Meter } = await load("meter");
const { FIRST_RANGE, including } = await load("range");
const { linkOf, troubleOf } = await load("link");
const { Takes } = await load("takes");
const { CONTROLS: DEMO_CONTROLS, Demo, tune } = await load("demo");
const { Player } = await load("player");
const { Taps } = await load("tap");
const { labelOf, readLayout } = await load("layout");
const { STYLES, comped } = await load("comping");
const { isBlack, lastOf, whitesIn } = await load("keys");
const { Take, beatName, clockText } = await load("take");
const { Playback } = await load("playback");
const { scrolled } = await load("takeroll");

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
const makeFollower = (plan, ahead = 0.1, patience = 1000, comp = undefined) => {
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
    fade(handle, time) {
      sounded.push({ pitches: [...`fade of ${String.fromCharCode(...handle.pitches)}`].map((c) => c.charCodeAt(0)), time });
    },
  };
  return { follower: new Follower(clock, plan, sink, ahead, () => patience, comp), sounded };
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

/** What a style strikes in each frame of a bar, by the letters of `chord`; "-" goes on, "." ends. */
const struckIn = (style, chord, frames, news = [0], from = 0) => {
  const found = [];
  for (let step = from; step < from + frames; step++) {
    const struck = comped(style, [...chord], step, news.includes(step));
    found.push(struck ? struck.join("") || "." : "-");
  }
  return found.join(" ");
};

test("a chord is played as a pad, on the beat, as an arpeggio or with its bass", () => {
  assert.equal(struckIn("pad", "Bceg", 8), "Bceg - - - - - - -");
  assert.equal(struckIn("beat", "Bceg", 9, [0, 6]), "Bceg - - - Bceg - Bceg - Bceg");
  assert.equal(struckIn("arpeggio", "Bceg", 16), "B - c - e - g - c - e - g - c -");
  assert.equal(struckIn("arpeggio", "Bceg", 8, [5], 4), "e B g - c - e -"); // new off the beat
  assert.equal(struckIn("bass", "Bceg", 12), "B - - - ceg - - - ceg - - -");
  assert.equal(struckIn("bass", "Bceg", 12, [8]), "B - - - ceg - - - Bceg - - -");
  for (const style of [...Object.keys(STYLES), undefined, "other"]) {
    assert.equal(struckIn(style, "", 6, [1]), "- . - - - -", style); // silence is silent in every style
    assert.match(struckIn(style, "B", 16), /^B /, style);
    assert.doesNotMatch(struckIn(style, "B", 16), /undefined|\./, style);
  }
});

test("comping strikes again what goes on, follows the plan, and stops where no plan is", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "AaaaaaBbb...", 12), 0);
  const { follower, sounded } = makeFollower(plan, 0.5, 1000, (...of) => comped("beat", ...of));
  follower.run(0);
  assert.deepEqual(heard(sounded), [["A", 0]]);
  follower.run(0.2);
  assert.deepEqual(heard(sounded), [["A", 0], ["A", 4]]);
  plan.commitUntil = 2;
  plan.apply(planned(2, 2, "aaCccccc", 2), 2); // what has not begun is taken back, restruck or not
  follower.revise(0.26);
  assert.deepEqual(heard(sounded), [["A", 0]]);
  for (let now = 0.26; now < 2; now += 0.025) follower.run(now); // frames 10 to 15 have no plan
  assert.deepEqual(heard(sounded), [["A", 0], ["C", 4], ["C", 8]]);
  assert.equal(follower.underruns, 6);
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

test("without a plan the chord fades once, and sounds again with the next plan that holds it", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "Aa", 2), 0);
  const { follower, sounded } = makeFollower(plan, 0.1, 3);
  for (let now = 0; now < 1; now += 0.025) follower.run(now); // frames 2 to 7 begin
  assert.deepEqual(heard(sounded), [["A", 0], ["fade of A", 4]]);
  assert.ok(follower.hasFaded);
  assert.equal(follower.underruns, 6);
  plan.apply(planned(2, 8, "aa", 2), 8); // goes on, but nothing sounds any more
  for (let now = 1; now < 1.2; now += 0.025) follower.run(now);
  assert.deepEqual(heard(sounded).slice(2), [["A", 8]]);
  assert.ok(!follower.hasFaded);
});

test("what comes next is counted from the frame that sounds, at every frame", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "AaaaaaaaBbbb.bDddd", 18), 0);
  for (let frame = 0; frame < 8; frame++) {
    assert.deepEqual(plan.nextAfter(frame, "A"), { sym: "B", beats: frame < 4 ? 2 : 1 }, `frame ${frame}`);
  }
  for (let frame = 8; frame < 14; frame++) { // D is struck off the beat
    assert.deepEqual(plan.nextAfter(frame, "B"), { sym: "D", beats: frame < 10 ? 2 : 1 }, `frame ${frame}`);
  }
  assert.equal(plan.nextAfter(14, "D"), null);
  assert.equal(plan.nextAfter(17, "D"), null);
  assert.deepEqual(plan.nextAfter(0, ""), { sym: "B", beats: 2 });
  plan.apply(planned(2, 4, "aaCccc", 2), 4); // the plan has changed between two beats
  assert.deepEqual(plan.nextAfter(5, "A"), { sym: "B", beats: 1 }); // settled chords stay
});

test("a note is outside where a chord sounds without its pitch class", () => {
  const plan = new Plan();
  plan.apply(planned(1, 0, "AaBb..", 6), 0); // pitches 65 and 66
  const found = (pitch, start, end) =>
    stretchesOf(pitch, start, end, plan.chords).map(({ start: from, end: to, isOutside }) => [from, to, isOutside]);
  assert.deepEqual(found(65, 0, 5.5), [[0, 2, false], [2, 4, true], [4, 5.5, false]]);
  assert.deepEqual(found(65 + 12, 1, 2), [[1, 2, false]]);
  assert.deepEqual(found(60, 0, 3), [[0, 3, true]]);
  assert.deepEqual(found(60, 8, 9), [[8, 9, false]]); // no chord known
});

test("numbers of fields are stepped, bounded, and their default where they are none", () => {
  const tempo = { min: 30, max: 240, step: 1, fallback: 120 };
  for (const nonsense of [NaN, Infinity, -Infinity, null, undefined, "", "fast", "100", {}, [], true]) {
    assert.equal(cleanNumber(nonsense, tempo), 120, String(nonsense));
  }
  for (const [given, expected] of [[29, 30], [-5, 30], [1e9, 240], [99.4, 99], [120, 120]]) {
    assert.equal(cleanNumber(given, tempo), expected);
  }
  assert.equal(cleanNumber(0.33, { min: 0, max: 2, step: 0.05, fallback: 1 }), 0.35);
});

test("of what was kept only known names with values of their type count", () => {
  const types = { bpm: "number", metronome: "boolean", model: "string" };
  const found = { bpm: null, metronome: "yes", model: "small", other: 3, toString: "x" };
  assert.deepEqual(cleanStored(found, types), { model: "small" });
  assert.deepEqual(cleanStored({ bpm: 90, metronome: false }, types), { bpm: 90, metronome: false });
  for (const nonsense of [null, undefined, 7, "text", true]) assert.deepEqual(cleanStored(nonsense, types), {});
});

/** Settings over fields like those of a page, and what localStorage holds. */
const makeSettings = (stored) => {
  const store = new Map([["gapt-live", JSON.stringify(stored)]]);
  globalThis.localStorage = { getItem: (name) => store.get(name) ?? null, setItem: (name, text) => store.set(name, text) };
  const field = (type, name, rest) => ({
    type, name, tagName: "INPUT", listeners: [], ...rest,
    get valueAsNumber() { return this.value === "" ? NaN : Number(this.value); },
    addEventListener(kind, listener) { this.listeners.push(listener); },
    type_(value) { this.value = value; for (const listener of this.listeners) listener(); },
  });
  const bpm = field("number", "bpm", { value: "120", defaultValue: "120", min: "30", max: "240", step: "1" });
  const ahead = field("number", "ahead", { value: "16", defaultValue: "16", min: "2", max: "32", step: "1" });
  const metronome = field("checkbox", "metronome", { checked: true });
  const changed = [];
  const form = { elements: Object.assign([bpm, ahead, metronome], { bpm, ahead, metronome }) };
  const settings = new Settings(form, (name) => changed.push(name));
  return { settings, bpm, ahead, metronome, changed, kept: () => JSON.parse(store.get("gapt-live")) };
};

test("an emptied setting is its default at once, and nonsense is never kept", () => {
  const { settings, bpm, changed, kept } = makeSettings({});
  bpm.type_("90");
  assert.equal(settings.values.bpm, 90);
  bpm.type_("");
  assert.equal(settings.values.bpm, 120);
  assert.equal(Number(bpm.value), 120);
  assert.equal(kept().bpm, 120);
  bpm.type_("9999");
  assert.equal(settings.values.bpm, 240);
  assert.deepEqual(changed, ["bpm", "bpm", "bpm"]);
});

test("nonsense that was kept is not used and does not stay", () => {
  const { settings, ahead, kept } = makeSettings({ bpm: null, metronome: "no", ahead: "x", old: 1 });
  assert.deepEqual(settings.values, { bpm: 120, ahead: 16, metronome: true });
  ahead.type_("8");
  assert.deepEqual(kept(), { ahead: 8 });
});

test("a bound of the model holds, and what was kept comes back with another model", () => {
  const { settings, ahead, kept } = makeSettings({ ahead: 20 });
  settings.bound("ahead", 12);
  assert.equal(settings.values.ahead, 12);
  ahead.type_("30");
  assert.equal(settings.values.ahead, 12);
  settings.set({ ahead: 20 });
  assert.equal(kept().ahead, 12);
  const other = makeSettings({ ahead: 20 });
  other.settings.bound("ahead", 12);
  other.settings.bound("ahead", 32);
  assert.equal(other.settings.values.ahead, 20);
});

test("a metre change waits for the bar line, and bars go on being counted", () => {
  const meter = new Meter(4);
  assert.deepEqual(meter.place(-16), { bar: -1, start: -16, beat: 0, beats: 4 }); // the count-in
  assert.deepEqual(meter.place(37), { bar: 2, start: 32, beat: 1, beats: 4 });
  meter.change(3, 37);
  assert.deepEqual(meter.place(47), { bar: 2, start: 32, beat: 3, beats: 4 });
  assert.deepEqual(meter.place(48), { bar: 3, start: 48, beat: 0, beats: 3 });
  assert.deepEqual(meter.place(60), { bar: 4, start: 60, beat: 0, beats: 3 });
  meter.change(5, 60); // on a bar line: at once
  assert.deepEqual(meter.place(60), { bar: 4, start: 60, beat: 0, beats: 5 });
  assert.ok(meter.isBar(80) && !meter.isBar(72));
  let bars = 0; // bar lines are one bar apart, whatever was changed
  for (let frame = 0; frame <= 80; frame++) {
    if (meter.isBar(frame)) assert.equal(meter.place(frame).bar, bars++);
  }
  assert.equal(bars, 6);
});

test("of metre changes within a bar the last one counts", () => {
  const meter = new Meter(4);
  for (const beats of [3, 7, 2]) meter.change(beats, 5);
  assert.deepEqual(meter.segments, [{ frame: 0, beats: 4, bar: 0 }, { frame: 16, beats: 2, bar: 1 }]);
});

test("a note outside the range moves the range, and every key can be seen", () => {
  let range = FIRST_RANGE;
  for (let pitch = 46; pitch <= 80; pitch++) assert.deepEqual(including(range, pitch), FIRST_RANGE);
  range = including(range, 96);
  assert.deepEqual(range, [45, 99]);
  for (const pitch of [0, 127]) {
    range = including(range, pitch);
    assert.ok(range[0] <= pitch && pitch <= range[1]);
  }
  assert.deepEqual(range, [0, 127]);
});

test("a link is lost without a connection and frozen without an answer, and is said in words", () => {
  assert.equal(linkOf(true, 0), "open");
  assert.equal(linkOf(true, 2900), "open");
  assert.equal(linkOf(true, 3100), "frozen");
  assert.equal(linkOf(false, 0), "lost");
  assert.equal(troubleOf("open", true), "");
  const said = ["lost", "frozen"].flatMap((link) => [troubleOf(link, true), troubleOf(link, false)]);
  assert.equal(new Set(said).size, 4);
  assert.ok(said.every((text) => text.startsWith("The server")));
});

test("the tempo is of the median time between the last eight taps, and a pause forgets them", () => {
  const taps = new Taps();
  let now = 1000;
  const after = (...pauses) => pauses.map((pause) => taps.tap(now += pause));
  assert.deepEqual(after(0, 500, 500, 500), [null, 120, 120, 120]);
  assert.deepEqual(after(900, 500), [120, 120]); // one slip counts for nothing
  assert.deepEqual(after(2001, 1000), [null, 60]);
  assert.deepEqual(after(2000), [40]); // half way between 60 and 30; slower is no tempo
  assert.equal(after(...Array(8).fill(250)).at(-1), 240);
  assert.equal(after(...Array(7).fill(300)).at(-1), 200); // the 250s are out
});

test("keys are called as the keyboard's layout has them, else as on an English one", async () => {
  const german = new Map([["KeyZ", "y"], ["Semicolon", "ö"], ["KeyA", " "]]);
  const codes = ["KeyZ", "Semicolon", "KeyA", "KeyW"];
  assert.deepEqual(codes.map((code) => labelOf(code, german)), ["Y", "Ö", "A", "W"]);
  assert.deepEqual(codes.map((code) => labelOf(code, new Map())), ["Z", ";", "A", "W"]);
  const ask = (keyboard) => {
    Object.defineProperty(globalThis, "navigator", { value: { keyboard }, configurable: true });
    return readLayout();
  };
  assert.equal((await ask({ getLayoutMap: async () => german })).get("KeyZ"), "y");
  for (const keyboard of [undefined, { getLayoutMap: () => Promise.reject(new Error("not allowed")) }]) {
    assert.equal((await ask(keyboard)).size, 0);
  }
});

test("the last ten takes are kept, the newest first, and nonsense is not", () => {
  const store = new Map();
  globalThis.localStorage = { getItem: (name) => store.get(name) ?? null, setItem: (name, text) => store.set(name, text) };
  const take = (number) => ({ id: `take${number}`, model: "small", at: number });
  const takes = new Takes();
  assert.equal(takes.last, undefined);
  for (let number = 0; number < 12; number++) takes.add(take(number));
  takes.add(take(11)); // begun again
  assert.deepEqual(new Takes().list.map(({ at }) => at), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
  for (const nonsense of ["{", "3", '[{"id":3}]', "null"]) {
    store.set("gapt-live-takes", nonsense);
    assert.deepEqual(new Takes().list, []);
  }
});

test("a take keeps its name and the take whose melody it has, and no more", () => {
  const store = new Map();
  globalThis.localStorage = { getItem: (name) => store.get(name) ?? null, setItem: (name, text) => store.set(name, text) };
  const takes = new Takes();
  takes.add({ id: "a", model: "small", at: 1 });
  takes.add({ id: "b", model: "other", at: 2, of: "a" });
  assert.deepEqual(takes.rename("a", "  First try "), { id: "a", model: "small", at: 1, name: "First try" });
  assert.equal(takes.rename("gone", "x"), undefined);
  const kept = new Takes().list;
  assert.deepEqual(kept, [{ id: "b", model: "other", at: 2, of: "a" }, { id: "a", model: "small", at: 1, name: "First try" }]);
  assert.equal(takes.rename("a", "x".repeat(100)).name.length, 60);
  assert.ok(!("name" in takes.rename("a", " ")));
  store.set("gapt-live-takes", JSON.stringify([{ id: "a", model: "m", at: 1, name: 7, of: {}, other: 1 }]));
  assert.deepEqual(new Takes().list, [{ id: "a", model: "m", at: 1 }]);
});

/** A take of letters as `planned` has them, its notes [pitch, on, off]. */
const makeTake = (letters, notes = [], rest = {}) => {
  const plan = new Plan();
  plan.apply(planned(1, 0, letters, 0), 0);
  return new Take({
    session: "one", model: "small", frames: letters.length, tempos: [{ f: 0, bpm: 120 }], meters: [{ f: 0, beats: 1 }],
    chords: plan.runs, notes: notes.map(([p, on, off]) => ({ p, on, off, v: 80 })), ...rest,
  });
};
const chartText = ({ chart }) => chart.map(({ number, chords }) =>
  `${number}:` + chords.map(({ sym, beat, goesOn }) => (sym || "-") + beat + (goesOn ? "~" : "")).join(" "));

test("a chord chart says of each bar what sounds at its begin and what follows, and on which beat", () => {
  assert.deepEqual(chartText(makeTake("....AaaaaBbb.Cc")), ["1:-1", "2:A1", "3:A1~ B1¼", "4:-1 C1¼"]);
  assert.deepEqual(chartText(makeTake("AaAa")), ["1:A1"]); // struck again
  const changed = { meters: [{ f: 0, beats: 1 }, { f: 4, beats: 2 }] };
  assert.deepEqual(chartText(makeTake("AaaaaabbccccD", [], changed)), ["1:A1", "2:A1~ B1½ C2", "3:D1"]);
  assert.deepEqual([0, 1, 6, 15].map(beatName), ["1", "1¼", "2½", "4¾"]);
});

test("a take's frames have their times, whatever tempo changed", () => {
  const take = makeTake("A".repeat(20), [], { tempos: [{ f: 0, bpm: 120 }, { f: 8, bpm: 60 }, { f: 12, bpm: 240 }] });
  for (const [frame, seconds] of [[0, 0], [8, 1], [12, 2], [20, 2.5]]) {
    close(take.time.timeOf(frame), seconds);
    close(take.time.frameAt(seconds), frame);
  }
  close(take.seconds, 2.5);
  assert.deepEqual([0, 9.99, 75, 600].map(clockText), ["0:00", "0:09", "1:15", "10:00"]);
  assert.ok(makeTake("....").isEmpty && !makeTake("...A").isEmpty && !makeTake("...", [[60, 0, 1]]).isEmpty);
});

/** A playback at 120 BPM over a clock that is set by hand, and the list of what it sounded. */
const makePlayback = (take, from = 0, style = "pad") => {
  const clock = { at: 100, now: () => clock.at, heard: () => clock.at };
  const sounded = [];
  const put = (name, time, until) => sounded.push([name, Math.round((time - start) * 8), until]);
  const sound = {
    note(pitch, velocity, time, until) {
      put(pitch, time, Math.round((until - start) * 8));
      return { releasedAt: until };
    },
    strike(pitches, time) {
      put(String.fromCharCode(...pitches), time);
      return pitches;
    },
    letGo: (voices) => sounded.push(["let go", voices.length]),
  };
  const playback = new Playback(sound, clock, () => style);
  playback.onchange = () => {};
  playback.load(take, from);
  const start = 100.08; // of what is played first
  const run = (seconds) => {
    for (const until = clock.at + seconds; clock.at < until - 1e-9; clock.at += 0.025) playback.step();
  };
  return { playback, clock, sounded, run };
};

test("a take is played once, note for note and chord for chord, and ends", () => {
  const { playback, sounded, run } = makePlayback(makeTake("..AaB..C", [[60, 0, 1], [62, 1, 7]]));
  playback.play();
  run(0.6);
  assert.deepEqual(sounded, [[60, 0, 1], [62, 1, 7], ["A", 2, undefined], ["B", 4, undefined], ["", 5, undefined]]);
  assert.ok(playback.position > 4 && playback.position < 4.3, `${playback.position}`);
  run(1);
  assert.deepEqual(sounded.slice(5).map(([name, at]) => [name, at]), [["C", 7], ["", 8], ["let go", 2]]);
  assert.ok(!playback.playing);
  assert.equal(playback.position, 8);
  playback.play(); // from the begin
  assert.ok(playback.position < 1);
});

test("from the middle the chord that sounds there is struck, and what is past is not played", () => {
  const { playback, sounded, run } = makePlayback(makeTake("AaaaaaBb", [[60, 0, 3], [62, 5, 6]]), 3);
  playback.play();
  run(0.35);
  assert.deepEqual(sounded.map(([name, at]) => [name, at]), [["A", 0], [62, 2], ["B", 3]]);
  playback.pause();
  assert.deepEqual(sounded.at(-1), ["let go", 2]);
  const { position } = playback;
  run(1);
  assert.equal(playback.position, position);
  assert.equal(sounded.length, 4);
});

test("a take is played in the way that the player has chosen", () => {
  const { playback, sounded, run } = makePlayback(makeTake("AaaaaaBb.Cccccccc"), 0, "beat");
  playback.play();
  run(3);
  const struck = sounded.map(([name, at]) => [name, at]);
  assert.deepEqual(struck, [["A", 0], ["A", 4], ["B", 6], ["", 8], ["C", 9], ["C", 12], ["C", 16], ["", 17]]);
});

test("another take goes on where the first is, where it plays", () => {
  const { playback, sounded, run } = makePlayback(makeTake("AaaaaaAa"));
  playback.play();
  run(0.4);
  const at = playback.position;
  playback.load(makeTake("BbbbbbBb"), at);
  assert.ok(playback.playing);
  assert.equal(sounded.at(-1)[0], "B");
  playback.seek(99);
  run(0.2);
  assert.equal(playback.position, 8);
  playback.pause();
  playback.load(makeTake("CccccccC"), 4);
  assert.ok(!playback.playing);
  assert.equal(playback.position, 4);
});

test("a take is scrolled from its begin to its end and no further", () => {
  assert.deepEqual([-5, 30, 70, 95].map((first) => scrolled(first, 100, 40)), [0, 30, 60, 60]);
  assert.equal(scrolled(10, 30, 40), 0); // all of it is in sight
});

test("white keys are 36 px wide at least, and fill the width", () => {
  for (let width = 288; width < 1400; width++) {
    const whites = whitesIn(width);
    assert.ok(width / whites >= 36);
    let count = 0;
    for (let pitch = 60; pitch <= lastOf(60, whites); pitch++) count += !isBlack(pitch);
    assert.equal(count, whites);
  }
});

test("what is borrowed is used, not kept, and given back but where a hand has changed it", () => {
  const { settings, bpm, ahead, kept } = makeSettings({ bpm: 90 });
  settings.borrow({ bpm: 108, ahead: 8 });
  assert.deepEqual([settings.values.bpm, settings.values.ahead], [108, 8]);
  settings.set({ bpm: 108, ahead: 8 }); // as the server says them again
  ahead.type_("12");
  assert.deepEqual(kept(), { bpm: 90, ahead: 12 });
  settings.giveBack();
  assert.deepEqual([settings.values.bpm, settings.values.ahead], [90, 12]);
  assert.equal(Number(bpm.value), 90);
  settings.borrow({ ahead: 8 });
  settings.giveBack();
  assert.equal(settings.values.ahead, 12);
  const fresh = makeSettings({}); // nothing was kept: the default comes back
  fresh.settings.borrow({ bpm: 108 });
  fresh.settings.giveBack();
  assert.equal(fresh.settings.values.bpm, 120);
});

/** A session that plays with itself: what it sent, and a way to answer. */
const makeSession = () => {
  const sent = [];
  const socket = { connected: true, send: (message) => sent.push(message) };
  const sink = { strike: () => ({}), undo() {}, click() {}, fade() {} };
  const values = { bpm: 120, beats_per_bar: 4, lookahead_frames: 16, commit_frames: 4, model: "" };
  const session = new Session({ socket, clock: makeClock(), sound: sink, midi: sink, settings: { values } });
  Object.assign(session, { onphase() {}, onplan() {}, onerror() {}, onmodels() {}, oncontrols() {}, onstudy() {} });
  session.begin();
  session.receive({ type: "started", session: "one", controls: {} });
  return { session, sent, socket, values };
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

test("a session comps by its metre as its player has chosen, and never in a study", () => {
  const { session, values } = makeSession();
  const steps = () => Array.from({ length: 24 }, (_, frame) => session.comp([1, 2], frame, false)).flatMap(
    (struck, frame) => (struck ? [`${frame}:${struck}`] : []));
  assert.deepEqual(steps(), []);
  Object.assign(values, { comping: "bass" });
  session.meter.start(3);
  assert.deepEqual(steps(), ["0:1", "4:2", "8:2", "12:1", "16:2", "20:2"]);
  session.receive({ type: "ready", models: [], study: { questions: [], scale: [1, 5] } });
  assert.deepEqual(steps(), []);
});

test("a session that the server forgot ends its take and nothing begins by itself", () => {
  const { session, sent, socket } = makeSession();
  const told = [];
  session.onerror = (text) => told.push(text);
  socket.connected = false;
  assert.equal(session.link, "lost");
  socket.connected = true;
  session.receive({ type: "ready", models: [] });
  assert.deepEqual([sent.at(-1).type, sent.at(-1).session], ["start", "one"]);
  const before = sent.length;
  session.receive({ type: "error", code: "no_session", msg: "that session is over", fatal: false });
  assert.equal(session.phase, "stopped");
  assert.equal(session.ending, told[0]);
  assert.ok(told[0].endsWith("Your take ends here."));
  session.step();
  session.receive({ type: "ready", models: [] });
  assert.equal(sent.length, before);
});

test("a session that the server still knows goes on where it was", () => {
  const { session, sent } = makeSession();
  const position = session.position;
  session.receive({ type: "ready", models: [] });
  session.receive({ type: "started", session: "one", controls: {} });
  assert.equal(session.phase, "playing");
  assert.ok(session.position - position < 4);
  assert.equal(sent.filter(({ type, session: id }) => type === "start" && id === "one").length, 1);
});

test("a server without answers is frozen and asked seldom; its answer thaws it", () => {
  const { session, sent } = makeSession();
  session.asked -= 5000;
  session.lastTick = performance.now();
  session.clock.start(120, session.clock.now() - 1); // frame 8
  session.step();
  assert.equal(session.link, "frozen");
  assert.equal(sent.filter(({ type }) => type === "tick").length, 1);
  session.lastTick -= 1100;
  session.step();
  const ticks = sent.filter(({ type }) => type === "tick");
  assert.equal(ticks.length, 2);
  session.receive({ type: "plan", ...planned(1, 8, "ABCD", 2), t: ticks[1].t, late: true });
  assert.equal(session.link, "open");
});

test("at rest the server is asked for a sign of life", () => {
  const { session, sent } = makeSession();
  session.stop();
  session.watch();
  session.watch();
  assert.deepEqual(sent.slice(-2).map(({ type }) => type), ["stop", "ping"]);
  session.asked -= 5000;
  assert.equal(session.link, "frozen");
  session.receive({ type: "pong", t: 0 });
  assert.equal(session.link, "open");
});

test("after a long silence notes are never far ahead of the last tick", () => {
  const { session, sent } = makeSession();
  for (let frame = 0; frame < 300; frame += 4) session.melody.press(60 + (frame % 7), 80, frame);
  session.tick(300);
  let ticked = 0;
  for (const message of sent) {
    if (message.type === "tick") ticked = message.now_frame;
    if (message.type === "notes") assert.ok(message.events.every(({ f }) => f <= ticked + 64));
  }
  assert.equal(ticked, 300);
});

test("a metre change while playing keeps the bar that is played, and moves no click", () => {
  const { session, sent, values } = makeSession();
  const clicks = [];
  session.sound.click = (time, isAccent) => clicks.push(isAccent);
  values.metronome = true;
  session.clock.start(120, session.clock.now() - 2.3); // frame 18.4: bar 2
  assert.equal(session.meter.place(session.position).bar, 1);
  values.beats_per_bar = 3;
  session.change(["beats_per_bar"]);
  assert.equal(sent.at(-1).beats_per_bar, 3);
  assert.equal(session.meter.place(session.position).bar, 1);
  assert.deepEqual(session.meter.segments.at(-1), { frame: 32, beats: 3, bar: 2 });
  for (session.nextClick = 0; session.nextClick < 15;) session.click(Infinity);
  const accents = clicks.flatMap((isAccent, beat) => (isAccent ? [beat] : []));
  assert.deepEqual(accents, [0, 4, 8, 11, 14]);
});

test("a start that a frozen server answers later begins nothing", () => {
  const { session, sent } = makeSession();
  session.stop();
  session.begin();
  session.watch();
  assert.equal(session.phase, "starting");
  session.asked -= 5000;
  session.watch();
  assert.deepEqual([session.phase, session.link], ["idle", "frozen"]);
  session.receive({ type: "started", session: "two", controls: {} });
  assert.deepEqual([session.phase, session.link, session.id], ["idle", "open", "one"]);
  assert.equal(sent.at(-1).type, "stop");
});

test("the demo's tune is whole bars of keys that go down and up, and a chord may sound within four seconds", () => {
  const events = tune();
  let held = null;
  for (const [index, { frame, pitch, velocity }] of events.entries()) {
    assert.ok(index === 0 || frame > events[index - 1].frame);
    assert.ok(velocity ? held === null : held === pitch);
    held = velocity ? pitch : null;
    assert.equal(velocity ? frame % FRAMES_PER_BEAT : Math.round(frame) % FRAMES_PER_BEAT, 0);
  }
  assert.equal(held, null);
  const { bpm, beats_per_bar: beats, intro_frames: silent } = DEMO_CONTROLS;
  assert.equal(Math.round(events.at(-1).frame) % (beats * FRAMES_PER_BEAT), 0);
  assert.ok((beats * FRAMES_PER_BEAT + silent) * frameSeconds(bpm) < 4);
});

/** A demo whose take is as far as a frame says, and the keys that it has pressed. */
const makeDemo = () => {
  const { session, sent } = makeSession();
  const sounded = [];
  const sound = { press: (pitch, velocity, time) => sounded.push(session.clock.frameAt(time)), release() {} };
  const player = new Player(sound, session);
  Object.assign(player, { onkeys() {}, onpress() {} });
  const settings = { lent: 0, borrow() { this.lent++; }, giveBack() { this.lent = 0; } };
  const demo = new Demo({ session, player, settings });
  demo.begin();
  const to = (frame) => {
    session.clock.start(120, session.clock.now() - frame * 0.125);
    demo.step();
  };
  return { session, sent, player, sounded, settings, demo, to };
};

test("the demo's keys are in the melody on the beat, whatever the ticker's jitter, and it ends by itself", () => {
  const { session, sounded, settings, demo, to } = makeDemo();
  to(-1);
  assert.deepEqual([sounded.length, settings.lent], [0, 1]);
  for (let frame = -0.3; frame < 31.5; frame += 0.17) to(frame);
  const found = session.melody.notes.map(({ p, on, off }) => [p, on, off]);
  const quarters = [60, 60, 67, 67, 69, 69].map((pitch, beat) => [pitch, 4 * beat, 4 * beat + 4]);
  assert.deepEqual(found.slice(0, 7), [...quarters, [67, 24, 32]]);
  [0, 4, 8, 12, 16, 20, 24].forEach((frame, index) => close(sounded[index], frame)); // not at the ticker's times
  to(205);
  assert.equal(session.phase, "playing");
  to(208.1);
  assert.equal(session.phase, "stopped");
  demo.end();
  assert.equal(settings.lent, 0);
});

test("a key of the player's own ends the tune, and the take goes on", () => {
  const { session, player, sounded, demo, to } = makeDemo();
  player.onpress = () => demo.handOver();
  for (let frame = -0.3; frame < 6; frame += 0.2) to(frame);
  assert.deepEqual([...player.held], [60]);
  player.press(72, 90, performance.now());
  assert.deepEqual([...player.held], [72]);
  const before = sounded.length;
  for (let frame = 6; frame < 220; frame += 4) to(frame);
  assert.deepEqual([sounded.length, session.phase, demo.on], [before, "playing", false]);
});
