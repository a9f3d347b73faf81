const FROZEN_MILLISECONDS = 3000;
const NOTES_SOUND = "Your own notes still sound.";
const GONE = "The server is not there. This page keeps trying.";
const SILENT = "The server does not answer.";

/** "open", "frozen" where an answer has been waited for too long (ms), "lost" without a connection. */
export function linkOf(connected, waiting) {
  if (!connected) return "lost";
  return waiting > FROZEN_MILLISECONDS ? "frozen" : "open";
}

/** What to say of a link that does not carry; empty where it does. */
export function troubleOf(link, playing) {
  if (link === "open") return "";
  const fault = link === "lost" ? GONE : SILENT;
  return playing ? `${fault} ${NOTES_SOUND}` : fault;
}
