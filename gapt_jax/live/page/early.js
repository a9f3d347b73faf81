// Before the first picture, so that nothing moves: whether an engineer's figures are shown, as settings.js keeps it.
try {
  const kept = JSON.parse(localStorage.getItem("gapt-live"));
  document.documentElement.classList.toggle("engineer", kept.engineer === true);
} catch {
  // nothing is kept, or storage is forbidden
}
