import { labelOf } from "./layout.js";

const BLACK = new Set([1, 3, 6, 8, 10]);
const NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];
const LETTERS = ["KeyA", "KeyW", "KeyS", "KeyE", "KeyD", "KeyF", "KeyT", "KeyG", "KeyY", "KeyH", "KeyU", "KeyJ", "KeyK",
  "KeyO", "KeyL", "KeyP", "Semicolon"];
const KEYBOARD_VELOCITY = 88;
const NARROWEST_KEY = 36;
const WHITES = [8, 36];
const LOWEST_BASE = 24;
const HIGHEST_BASE = 84;
const OCTAVES = { KeyZ: -1, KeyX: 1 };
const WRITTEN = "input:not([type]), input[type=text], textarea";

export const isBlack = (pitch) => BLACK.has(pitch % 12);
export const pitchName = (pitch) => NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);

/** White keys that fit into a width, none narrower than `NARROWEST_KEY`. */
export function whitesIn(width) {
  const [fewest, most] = WHITES;
  return Math.min(most, Math.max(fewest, Math.floor(width / NARROWEST_KEY)));
}

/** The highest of so many white keys from a C on. */
export function lastOf(low, whites) {
  const steps = [0, 2, 4, 5, 7, 9, 11];
  return low + 12 * Math.floor((whites - 1) / 7) + steps[(whites - 1) % 7];
}

/** Whether a key is typed into a field, or is part of a shortcut. */
export function isWriting({ ctrlKey, metaKey, altKey, target }) {
  return ctrlKey || metaKey || altKey || Boolean(target.closest?.(WRITTEN));
}

const isLetter = (key) => /^\p{L}$/u.test(key);

/** The drawn piano: pointers and the letter keys. `base` is the pitch of the letter a. */
export class Keys {
  constructor(element, player) {
    this.element = element;
    this.player = player;
    this.base = 60;
    this.keys = new Map();
    this.pointers = new Map();
    this.pressed = new Map();
    this.marked = [[], []];
    this.labels = new Map();
    this.listenToPointers();
    this.listenToLetters();
    new ResizeObserver(() => this.layout()).observe(element);
  }

  shift(octaves) {
    this.player.releaseAll();
    this.base = Math.min(HIGHEST_BASE, Math.max(LOWEST_BASE, this.base + 12 * octaves));
    this.layout();
  }

  /** What the keyboard writes on its keys, by code. */
  setLabels(labels) {
    this.labels = labels;
    this.layout();
  }

  layout() {
    const whites = whitesIn(this.element.clientWidth);
    const octaves = Math.floor((whites - 1) / 7);
    const below = octaves > 2 ? Math.floor(octaves / 2) : 0;
    const low = Math.min(96, Math.max(12, this.base - 12 * below));
    this.keys.clear();
    this.element.replaceChildren();
    this.element.style.setProperty("--white", `${100 / whites}%`);
    let white = 0;
    for (let pitch = low; pitch <= lastOf(low, whites); pitch++) {
      const key = this.draw(pitch);
      key.style.left = `calc(${white} * var(--white))`;
      if (!isBlack(pitch)) white++;
    }
    this.mark(...this.marked);
  }

  draw(pitch) {
    const key = document.createElement("div");
    key.className = isBlack(pitch) ? "key black" : "key white";
    key.dataset.pitch = pitch;
    const code = LETTERS[pitch - this.base];
    const name = pitch % 12 === 0 ? pitchName(pitch) : "";
    key.append(label("letter", code ? labelOf(code, this.labels) : ""), label("name", name));
    this.keys.set(pitch, key);
    this.element.append(key);
    return key;
  }

  /** Shows the player's keys and the band's. */
  mark(mine, theirs) {
    this.marked = [mine, theirs];
    for (const [pitch, key] of this.keys) {
      key.classList.toggle("mine", mine.includes(pitch));
      key.classList.toggle("theirs", theirs.includes(pitch));
    }
  }

  listenToPointers() {
    const { element } = this;
    element.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.target.releasePointerCapture?.(event.pointerId);
      this.point(event);
    });
    element.addEventListener("pointermove", (event) => this.pointers.has(event.pointerId) && this.point(event));
    for (const type of ["pointerup", "pointercancel"]) window.addEventListener(type, (event) => this.lift(event));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  point(event) {
    const key = document.elementFromPoint(event.clientX, event.clientY)?.closest(".key");
    const pitch = key ? Number(key.dataset.pitch) : null;
    if (this.pointers.get(event.pointerId) === pitch) return;
    this.lift(event);
    this.pointers.set(event.pointerId, pitch);
    if (key) this.player.press(pitch, touchVelocity(key, event.clientY), event.timeStamp);
  }

  lift(event) {
    const pitch = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (pitch !== undefined && pitch !== null) this.player.release(pitch, event.timeStamp);
  }

  listenToLetters() {
    window.addEventListener("keydown", (event) => this.letterDown(event));
    window.addEventListener("keyup", (event) => this.letterUp(event));
    window.addEventListener("blur", () => this.player.releaseAll());
  }

  letterDown(event) {
    if (isWriting(event)) return;
    if (isLetter(event.key) || LETTERS.includes(event.code)) event.preventDefault(); // else a select takes it
    if (event.repeat) return;
    if (event.code in OCTAVES) this.shift(OCTAVES[event.code]);
    const step = LETTERS.indexOf(event.code);
    if (step < 0) return;
    this.pressed.set(event.code, this.base + step);
    this.player.press(this.base + step, KEYBOARD_VELOCITY, event.timeStamp);
  }

  letterUp(event) {
    const pitch = this.pressed.get(event.code);
    this.pressed.delete(event.code);
    if (pitch !== undefined) this.player.release(pitch, event.timeStamp);
  }
}

function label(kind, text) {
  const element = document.createElement("span");
  element.className = kind;
  element.textContent = text;
  return element;
}

/** Nearer to the front of the key is louder. */
function touchVelocity(key, y) {
  const box = key.getBoundingClientRect();
  return Math.round(56 + 56 * Math.min(1, Math.max(0, (y - box.top) / box.height)));
}
