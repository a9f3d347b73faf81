import { FRAMES_PER_BEAT } from "./clock.js";
import { isBlack, pitchName } from "./keys.js";
import { chordName } from "./names.js";
import { stretchesOf } from "./plan.js";
import { FIRST_RANGE, including } from "./range.js";

const COLOURS = ["ink", "muted", "line", "strong-line", "shade", "melody", "outside", "chord", "now", "panel"];
const RESTYLED = ["(prefers-color-scheme: dark)", "(forced-colors: active)"];
const SOLID = [];
const DASHED = [4, 3];
const DOTTED = [1.5, 3];
const NARROW = 600;
const LANE = 52;
const NARROW_LANE = 40;
const NAME_GAP = 10;
const MARGIN = 28;

/** The scrolling view: past to the left of the now-line, the band's plan to its right. */
export class Roll {
  constructor(canvas, session, settings) {
    Object.assign(this, { canvas, session, settings });
    this.g = canvas.getContext("2d");
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.barNumbers = [];
    this.clear();
    for (const query of RESTYLED) matchMedia(query).addEventListener("change", () => this.restyle());
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.restyle();
  }

  clear() {
    [this.low, this.high] = FIRST_RANGE;
  }

  restyle() {
    const style = getComputedStyle(this.canvas);
    this.colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.serif = style.getPropertyValue("--serif");
    this.sans = style.getPropertyValue("--sans");
    this.resize();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.g.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.width = clientWidth;
    this.height = clientHeight;
    this.narrow = clientWidth < NARROW;
    this.lane = this.narrow ? NARROW_LANE : LANE;
    this.fonts = [this.narrow ? 21 : 28, this.narrow ? 14 : 18].map((size) => `500 ${size}px ${this.serif}`);
    this.small = `11px ${this.sans}`;
    this.widths = new Map();
    this.shown = null;
    this.draw();
  }

  /** Keeps every pitch in sight: the range only grows. */
  include(pitch) {
    [this.low, this.high] = including([this.low, this.high], pitch);
  }

  includePlan() {
    for (const run of this.session.plan.runs) for (const pitch of run.pitches) this.include(pitch);
    this.shown = null;
  }

  /** Where things lie. With reduced motion the picture turns bar by bar and the now-line steps. */
  place() {
    const { lookahead_frames: ahead } = this.settings.values;
    const past = this.narrow ? 7 : 12;
    let span = past + Math.max(16, ahead) + 3;
    this.now = this.session.position ?? this.shownWhenStopped ?? 0;
    this.origin = this.now - past;
    if (this.still.matches) {
      this.now = Math.floor(this.now);
      const { start, beats } = this.session.meter.place(this.now);
      this.origin = start - FRAMES_PER_BEAT;
      span += beats * FRAMES_PER_BEAT;
    }
    this.step = this.width / span;
    this.end = this.origin + span;
    this.placeRows();
  }

  placeRows() {
    this.row = (this.height - this.lane - 14) / (this.high - this.low + 1);
    this.thick = Math.min(15, Math.max(7, this.row * 1.15));
  }

  /** Frame until which the melody is shown. */
  get heardUntil() {
    return this.now;
  }

  x(frame) {
    return (frame - this.origin) * this.step;
  }

  y(pitch) {
    return this.lane + 6 + (this.high - pitch + 0.5) * this.row;
  }

  /** One picture; nothing when nothing moved. */
  draw() {
    this.place();
    if (this.session.playing) this.shownWhenStopped = this.now;
    if (this.now === this.shown) return;
    this.shown = this.now;
    const { g } = this;
    g.clearRect(0, 0, this.width, this.height);
    this.drawRows();
    this.drawBeats();
    if (this.session.playing) this.drawPast();
    this.drawIntro();
    this.drawChords();
    const { imagined, engineer } = this.settings.values;
    if (imagined && engineer) this.drawImagined();
    this.drawMelody();
    if (this.session.playing) this.drawNow();
    this.drawMargin();
    this.drawNames();
  }

  drawRows() {
    const { g, colours } = this;
    g.fillStyle = colours.shade;
    for (let pitch = this.low; pitch <= this.high; pitch++) {
      if (isBlack(pitch)) g.fillRect(0, this.y(pitch) - this.row / 2, this.width, this.row);
    }
  }

  drawMargin() {
    const { g, colours } = this;
    g.fillStyle = colours.panel;
    g.fillRect(0, this.lane, MARGIN, this.height);
    g.fillStyle = colours.muted;
    g.font = this.small;
    g.textAlign = "left";
    g.textBaseline = "middle";
    for (let pitch = Math.ceil(this.low / 12) * 12; pitch <= this.high; pitch += 12) {
      g.fillText(pitchName(pitch), 6, this.y(pitch));
    }
  }

  drawBeats() {
    const { g, colours } = this;
    g.font = this.small;
    g.textAlign = "left";
    g.textBaseline = "alphabetic";
    const first = Math.max(0, Math.ceil(this.origin / FRAMES_PER_BEAT) * FRAMES_PER_BEAT);
    for (let frame = first; frame < this.end; frame += FRAMES_PER_BEAT) {
      const { bar, start } = this.session.meter.place(frame);
      const isBar = start === frame;
      const x = Math.round(this.x(frame));
      g.fillStyle = isBar ? colours["strong-line"] : colours.line;
      g.fillRect(x, isBar ? 0 : this.lane, 1, this.height);
      if (!isBar) continue;
      g.fillStyle = colours.muted;
      g.fillText(this.barNumber(bar), x + 5, this.height - 5);
    }
  }

  barNumber(index) {
    return (this.barNumbers[index] ??= String(index + 1));
  }

  drawPast() {
    this.g.fillStyle = this.colours.shade;
    this.g.fillRect(0, 0, this.x(this.now), this.height);
  }

  drawChords() {
    const { plan } = this.session;
    for (const run of plan.runs) {
      if (run.end <= this.origin || run.start >= this.end) continue;
      const settled = Math.min(run.end, Math.max(run.start, plan.commitUntil, Math.ceil(this.now)));
      for (const pitch of run.pitches) {
        if (settled > run.start) this.drawSettled(run.start, settled, pitch);
        if (run.end > settled) this.drawTentative(settled, run.end, pitch);
      }
    }
  }

  box(start, end, pitch, radius, inset) {
    const x = this.x(start) + 1 + inset;
    const width = (end - start) * this.step - 2 - 2 * inset;
    const height = this.thick - 2 * inset;
    this.g.beginPath();
    this.g.roundRect(x, this.y(pitch) - height / 2, Math.max(width, 2), height, radius);
  }

  drawSettled(start, end, pitch) {
    this.box(start, end, pitch, 2, 0);
    this.g.fillStyle = this.colours.chord;
    this.g.fill();
  }

  drawTentative(start, end, pitch) {
    const { g, colours } = this;
    this.box(start, end, pitch, 2, 0.75);
    g.globalAlpha = 0.14;
    g.fillStyle = colours.chord;
    g.fill();
    g.globalAlpha = 1;
    g.lineWidth = 1.25;
    g.strokeStyle = colours.chord;
    g.stroke();
  }

  drawImagined() {
    const { g, colours } = this;
    g.setLineDash(DOTTED);
    g.lineWidth = 1.5;
    g.strokeStyle = colours.melody;
    g.globalAlpha = 0.75;
    for (const note of this.session.plan.imagined) {
      const start = Math.max(note.on, this.now);
      if (note.off <= start || start >= this.end) continue;
      this.box(start, note.off, note.p, this.thick / 2, 1);
      g.stroke();
    }
    g.setLineDash(SOLID);
    g.globalAlpha = 1;
  }

  drawMelody() {
    const { melody, plan } = this.session;
    const { notes } = melody;
    for (let index = notes.length - 1; index >= 0; index--) {
      const note = notes[index];
      const end = Math.max(note.on + 0.6, Math.min(note.off ?? Infinity, this.heardUntil));
      if (end < this.origin) break;
      for (const stretch of stretchesOf(note.p, note.on, end, plan.chords)) this.drawStretch(note.p, stretch);
    }
  }

  /** Full where the note is in the chord, hollow and of another colour where it is not. */
  drawStretch(pitch, { start, end, isOutside }) {
    const { g, colours } = this;
    this.box(start, end, pitch, this.thick / 2, isOutside ? 1 : 0);
    g.fillStyle = isOutside ? colours.panel : colours.melody;
    g.fill();
    if (!isOutside) return;
    g.lineWidth = 2;
    g.strokeStyle = colours.outside;
    g.stroke();
  }

  drawNow() {
    const { g, colours } = this;
    const x = Math.round(this.x(this.now));
    g.fillStyle = colours.now;
    g.fillRect(x - 1, this.lane, 2, this.height);
    g.beginPath();
    g.moveTo(x - 6, this.lane - 3);
    g.lineTo(x + 6, this.lane - 3);
    g.lineTo(x, this.lane + 5);
    g.fill();
  }

  drawIntro() {
    const { g, colours } = this;
    g.globalAlpha = 0.6;
    for (const run of this.session.plan.intro) this.drawName(run, run.end, colours.muted);
    g.globalAlpha = 1;
  }

  drawNames() {
    const { runs, commitUntil } = this.session.plan;
    let begin = 0;
    for (let index = 0; index < runs.length; index++) {
      const next = runs[index + 1];
      const goesOn = next && next.sym === runs[begin].sym && next.start === runs[index].end;
      if (goesOn && !this.session.meter.isBar(next.start)) continue;
      const run = runs[begin];
      begin = index + 1;
      if (runs[index].end <= this.origin || run.start >= this.end) continue;
      const settled = run.start < Math.max(commitUntil, this.now);
      this.drawName(run, runs[index].end, settled ? this.colours.ink : this.colours.muted);
      this.underline(run.start, runs[index].end, settled);
    }
  }

  /** The name in the largest size that fits, pushed along while its chord sounds at the left edge. */
  drawName(run, end, colour) {
    const { g } = this;
    const left = Math.max(this.x(run.start) + 5, 6);
    const right = this.x(end);
    const { text } = chordName(run.sym);
    const font = this.fonts.find((candidate) => left + this.textWidth(text, candidate) + NAME_GAP <= right);
    if (!font) return;
    g.font = font;
    g.textAlign = "left";
    g.textBaseline = "alphabetic";
    g.fillStyle = colour;
    g.fillText(text, left, this.lane - 16);
  }

  textWidth(text, font) {
    const sizes = this.widths.get(text) ?? {};
    if (!(font in sizes)) {
      this.g.font = font;
      sizes[font] = this.g.measureText(text).width;
      this.widths.set(text, sizes);
    }
    return sizes[font];
  }

  underline(start, end, settled) {
    const { g, colours } = this;
    const y = this.lane - 7;
    g.beginPath();
    g.moveTo(this.x(start) + 2, y);
    g.lineTo(this.x(end) - 2, y);
    g.setLineDash(settled ? SOLID : DASHED);
    g.lineWidth = settled ? 3 : 1.5;
    g.strokeStyle = colours.chord;
    g.stroke();
    g.setLineDash(SOLID);
  }
}
