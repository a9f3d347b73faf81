'use strict';
const data = JSON.parse(document.getElementById('songs').textContent);
let audio = null, playing = null;
const hertz = pitch => 440 * 2 ** ((pitch - 69) / 12);

function note(out, shape, pitch, from, until, level) {
  const tone = audio.createOscillator(), volume = audio.createGain(), end = Math.max(until, from + 0.08);
  tone.type = shape; tone.frequency.value = hertz(pitch);
  volume.gain.setValueAtTime(0, from);
  volume.gain.linearRampToValueAtTime(level, from + 0.015);
  volume.gain.setValueAtTime(level, end - 0.04);
  volume.gain.linearRampToValueAtTime(0, end);
  tone.connect(volume).connect(out); tone.start(from); tone.stop(end + 0.02);
}
function show(box, beat) {
  const song = data.songs[box.dataset.song], at = Math.min(beat / song.beats, 1);
  box.querySelector('.cursor').style.left = 100 * (data.left + (data.right - data.left) * at) + '%';
  const place = box.querySelector('input');
  place.value = beat; place.setAttribute('aria-valuetext', 'beat ' + (1 + Math.floor(beat)) + ' of ' + song.beats);
}
function stop() {
  if (!playing) return;
  const { box, out, button } = playing;
  playing.ended = true; playing = null;
  out.gain.value = 0; setTimeout(() => out.disconnect(), 100);
  button.setAttribute('aria-pressed', 'false');
  box.querySelector('[role=status]').textContent = 'Paused.';
}
function play(box, button) {
  stop();
  audio = audio || new AudioContext(); audio.resume();
  const song = data.songs[box.dataset.song], place = box.querySelector('input');
  let first = Number(place.value); if (first >= song.beats - 0.1) first = 0;
  const out = audio.createGain(); out.gain.value = 0.7; out.connect(audio.destination);
  const start = audio.currentTime + 0.08, time = beat => start + Math.max(beat - first, 0) * 60 / data.bpm;
  for (const [beat, length, pitch] of song.melody)
    if (beat + length > first) note(out, 'sine', pitch, time(beat), time(beat + length), 0.26);
  for (const [beat, length, pitches] of song.systems[button.dataset.system])
    if (beat + length > first)
      for (const pitch of pitches) note(out, 'triangle', pitch, time(beat), time(beat + length), 0.11);
  const mine = playing = { box, out, button, ended: false };
  button.setAttribute('aria-pressed', 'true');
  box.querySelector('[role=status]').textContent = 'Playing: ' + button.textContent + '.';
  (function step() {
    if (mine.ended) return;
    const beat = first + Math.max(audio.currentTime - start, 0) * data.bpm / 60;
    show(box, Math.min(beat, song.beats));
    const view = box.querySelector('.scroll'), cursor = box.querySelector('.cursor').offsetLeft;
    if (cursor < view.scrollLeft || cursor > view.scrollLeft + 0.9 * view.clientWidth) view.scrollLeft = cursor - 40;
    if (beat >= song.beats) { stop(); show(box, 0); } else requestAnimationFrame(step);
  })();
}
for (const box of document.querySelectorAll('[data-song]')) {
  box.querySelector('.player').hidden = false;
  show(box, 0);
  for (const button of box.querySelectorAll('button'))
    button.addEventListener('click', () => playing && playing.button === button ? stop() : play(box, button));
  const place = box.querySelector('input');
  place.addEventListener('input', () => {
    const button = playing && playing.box === box ? playing.button : null;
    if (button) stop();
    show(box, Number(place.value));
    if (button) play(box, button);
  });
}
