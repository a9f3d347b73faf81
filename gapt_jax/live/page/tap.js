const MOST = 8; // taps that count
const FORGOTTEN_MILLISECONDS = 2000;

/** The tempo in beats a minute of the last taps: of the median time between them. Null for the first one. */
export class Taps {
  constructor() {
    this.stamps = [];
  }

  /** `stamp`: when it was tapped, in ms. */
  tap(stamp) {
    const last = this.stamps[this.stamps.length - 1];
    if (stamp - last > FORGOTTEN_MILLISECONDS) this.stamps = [];
    this.stamps = [...this.stamps, stamp].slice(-MOST);
    const between = this.stamps.slice(1).map((later, index) => later - this.stamps[index]);
    return between.length ? 60000 / median(between) : null;
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
