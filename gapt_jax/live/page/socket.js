const PROTOCOL = "gapt-live.1";
const FIRST_DELAY = 500;
const LONGEST_DELAY = 8000;

/** A WebSocket that comes back by itself. Callbacks: onmessage(object), onopen(), onclose(delay in ms). */
export class Socket {
  constructor() {
    this.connected = false;
    this.delay = FIRST_DELAY;
    window.addEventListener("online", () => this.retryNow());
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.ws = new WebSocket(`${scheme}//${location.host}/v1/live`, PROTOCOL);
    this.ws.onopen = () => this.opened();
    this.ws.onclose = () => this.closed();
    this.ws.onmessage = (event) => this.received(event.data);
  }

  opened() {
    this.connected = true;
    this.onopen();
  }

  closed() {
    this.connected = false;
    const wait = this.delay * (0.75 + Math.random() / 2);
    this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
    this.timer = setTimeout(() => this.connect(), wait);
    this.onclose(wait);
  }

  retryNow() {
    if (this.ws.readyState !== WebSocket.CLOSED) return;
    clearTimeout(this.timer);
    this.connect();
  }

  received(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message.type === "ready") this.delay = FIRST_DELAY;
    this.onmessage(message);
  }

  send(message) {
    if (this.connected) this.ws.send(JSON.stringify(message));
  }
}
