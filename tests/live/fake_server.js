// Init script for browser tests: a server that exists only here, behind a WebSocket that is none.
// fakeServer.freeze() and thaw(): it does not answer, and answers again; drop() and comeBack(forgotten): it is gone, and
// there again; sent lists what the page has sent; every chord lasts `lasts` frames.
(() => {
  const CHORDS = [
    ["C", [36, 48, 52, 55]], ["F", [41, 48, 53, 57]], ["G7", [43, 50, 53, 55, 59]], ["Bbm7b5", [46, 49, 52, 56, 58]],
  ];
  const server = {
    sent: [], sockets: [], isThere: true, isFrozen: false, known: null, lasts: 8, rev: 0,
    models: [{ name: "small", family: "mle", weights_sha256: "0", lookahead_frames: 32 },
      { name: "shorter", family: "mle", weights_sha256: "1", lookahead_frames: 12 }],
    freeze: () => (server.isFrozen = true),
    thaw() {
      server.isFrozen = false;
      for (const socket of server.sockets) for (const text of socket.unread.splice(0)) answer(socket, JSON.parse(text));
    },
    drop() {
      server.isThere = false;
      for (const socket of server.sockets.splice(0)) socket.close();
    },
    comeBack(isForgotten) {
      server.isThere = true;
      if (isForgotten) server.known = null;
    },
  };

  const chordOf = (frame) => {
    const [sym, pitches] = CHORDS[Math.floor(frame / server.lasts) % CHORDS.length];
    if (frame < server.controls.intro_frames) return { f: frame, sym: "", pitches: [], on: false };
    return { f: frame, sym, pitches, on: frame % server.lasts === 0 };
  };

  const answers = {
    ping: ({ t }) => [{ type: "pong", t, t_recv: 0, t_send: 0 }],
    start(message) {
      const { type, session, model, ...controls } = message;
      if (session && session !== server.known) {
        return [{ type: "error", code: "no_session", msg: "that session is over", fatal: false }];
      }
      server.known = session ?? `take${server.sent.length}`;
      server.controls = { intro_frames: 0, commit_frames: 4, lookahead_frames: 16, ...controls };
      return [{ type: "started", session: server.known, model: model ?? "small", controls: server.controls }];
    },
    set(message) {
      Object.assign(server.controls, message);
      return [];
    },
    tick({ now_frame: now, t }) {
      const { commit_frames: commit, lookahead_frames: ahead } = server.controls;
      const chords = Array.from({ length: ahead }, (_, index) => chordOf(now + index));
      const rev = ++server.rev;
      return [{ type: "plan", rev, base_frame: now, commit_until: now + commit, chords, melody: [], late: false, t }];
    },
  };

  function answer(socket, message) {
    for (const said of answers[message.type]?.(message) ?? []) socket.receive(said);
  }

  class FakeSocket {
    constructor() {
      this.readyState = 0;
      this.unread = [];
      setTimeout(() => this.open(), 5);
    }

    open() {
      if (!server.isThere) return this.close();
      this.readyState = 1;
      server.sockets.push(this);
      this.onopen();
      this.receive({ type: "ready", proto: "gapt-live.1", models: server.models, limits: {} });
    }

    close() {
      if (this.readyState === 3) return;
      this.readyState = 3;
      setTimeout(() => this.onclose(), 0);
    }

    send(text) {
      server.sent.push(JSON.parse(text));
      if (server.isFrozen) this.unread.push(text);
      else answer(this, JSON.parse(text));
    }

    receive(message) {
      setTimeout(() => this.readyState === 1 && this.onmessage({ data: JSON.stringify(message) }), 1);
    }
  }
  FakeSocket.CLOSED = 3;
  window.WebSocket = FakeSocket;
  window.fakeServer = server;
})();
