// Init script for browser tests: a Web MIDI with devices that exist only here.
// fakeMidi.play(pitch, on, velocity, channel, id) plays; plug(name) and unplug(id) are hot-plugging; sent lists
// {id, data, stamp} of what the page sent out; refuse = true makes the browser say no; asked counts the
// times that the page asked.
(() => {
  const inputs = new Map();
  const outputs = new Map();
  const accesses = [];
  const sent = [];

  const announce = (port) => {
    for (const access of accesses) access.onstatechange?.({ port });
  };

  const addInput = (name) => {
    const port = { id: `in-${name}`, name, type: "input", state: "connected", onmidimessage: null };
    inputs.set(port.id, port);
    announce(port);
    return port.id;
  };

  const addOutput = (name) => {
    const id = `out-${name}`;
    const send = (data, stamp) => sent.push({ id, data: [...data], stamp: stamp ?? null });
    const port = { id, name, type: "output", state: "connected", send };
    outputs.set(id, port);
    announce(port);
    return id;
  };

  const unplug = (id) => {
    const ports = inputs.has(id) ? inputs : outputs;
    const port = ports.get(id);
    ports.delete(id);
    port.state = "disconnected";
    announce(port);
  };

  const send = (data, id = "in-Fake Keys") => {
    inputs.get(id)?.onmidimessage?.({ data: Uint8Array.from(data), timeStamp: performance.now() });
  };

  const play = (pitch, on, velocity = 80, channel = 0, id = undefined) => {
    send([(on ? 0x90 : 0x80) | channel, pitch, on ? velocity : 0], id);
  };

  window.fakeMidi = { play, send, plug: addInput, plugOut: addOutput, unplug, sent, refuse: false, asked: 0 };
  addInput("Fake Keys");
  addOutput("Fake Synth");

  Navigator.prototype.requestMIDIAccess = async () => {
    window.fakeMidi.asked++;
    if (window.fakeMidi.refuse) throw new DOMException("refused", "NotAllowedError");
    const access = { inputs, outputs, onstatechange: null };
    accesses.push(access);
    return access;
  };
})();
