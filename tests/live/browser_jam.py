"""Two minutes in a real browser: ``python -m tests.live.browser_jam URL --seconds 120 [--demo] [--shots DIR]``.

Needs Playwright and a Chromium (``--browser``). A scripted player with a fake MIDI device plays random notes, or the
page its demo; what the page showed must be what the server recorded, and nothing may be late. Prints one JSON object;
exits 1, and says why, where it failed.
"""

import argparse
import json
import random
import sys
import time
import urllib.request
from pathlib import Path

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
]
STATE = """() => { const g = window.gaptLive; return {frame: g.frame, rev: g.rev, commitUntil: g.commitUntil,
    scheduled: g.scheduled, underruns: g.underruns, latePlans: g.latePlans, violations: g.violations, sent: g.sent,
    roundTrip: g.roundTrip, session: g.session, running: g.running}; }"""
SHOWN = "() => Object.fromEntries(Object.entries(window.gaptLive.chords).map(([f, c]) => [f, c.sym]))"


def jam(browser, url: str, seconds: float, shots: Path | None, is_demo: bool) -> dict:
    """Plays and compares."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.add_init_script(path=str(Path(__file__).with_name("fake_midi.js")))
    page.goto(url)
    page.wait_for_timeout(800)
    page.evaluate("document.querySelector('#connect-midi').click()")
    page.click("#demo" if is_demo else "#start")
    rng, shown, held = random.Random(0), {}, None
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not is_demo:
            if held is not None:
                page.evaluate(f"fakeMidi.play({held}, false)")
            held = rng.choice([60, 62, 64, 65, 67, 69, 71, 72])
            page.evaluate(f"fakeMidi.play({held}, true)")
        page.wait_for_timeout(rng.choice([125, 250, 250, 500]))
        found = page.evaluate(STATE)
        seen = page.evaluate(SHOWN)
        for frame, symbol in seen.items():
            if int(frame) < found["commitUntil"]:
                assert shown.setdefault(int(frame), symbol) == symbol, f"frame {frame} changed"
    if shots:
        page.screenshot(path=str(shots / "jam_wide.png"))
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(300)
        page.screenshot(path=str(shots / "jam_phone.png"))
    found = page.evaluate(STATE)
    page.click("#stop")
    page.wait_for_timeout(500)
    with urllib.request.urlopen(f"{url}/api/sessions/{found['session']}.json", timeout=30) as answer:
        record = json.load(answer)
    page.close()
    heard = {frame: symbol for frame, symbol in shown.items() if record["controls"]["intro_frames"] <= frame}
    heard = {frame: symbol for frame, symbol in heard.items() if frame < len(record["symbols"])}
    differ = sum(record["symbols"][frame] != symbol for frame, symbol in heard.items())
    found |= {"faults": faults, "compared": len(heard), "differ": differ, "chords": len(set(heard.values()))}
    return found | {"melody": record["melody"], "intro": record["controls"]["intro_frames"]}


def faults_of(found: dict) -> list[str]:
    """What went wrong in a jam."""
    wrong = [name for name in ("faults", "underruns", "latePlans", "violations", "differ") if found[name]]
    return wrong + [f"no {name}" for name in ("scheduled", "compared") if not found[name]]


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser, args=FLAGS)
        found = jam(browser, args.url, args.seconds, args.shots, args.demo)
        browser.close()
    print(json.dumps(found))
    sys.exit(", ".join(faults_of(found)) or 0)


if __name__ == "__main__":
    main()
