"""The page in a browser, beside a server of its own (fake_server.js): ``python -m tests.live.browser_page [NAME...]``.

Needs Playwright and a Chromium (``--browser``). Prints one JSON object: by the name of each check what was wrong, empty
where nothing was. ``--shots DIR`` also takes pictures.
"""

import argparse
import base64
import contextlib
import functools
import http.server
import json
import math
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.live.browser_jam import FLAGS

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1] / "gapt_jax" / "live" / "page"
SHIFTS = """window.shifts = [];
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) {
    const named = ({ node }) => node ? `${node.nodeName}#${node.id ?? ""}.${node.className ?? ""}` : "?";
    window.shifts.push({ value: shift.value, what: shift.sources.map(named) });
  }
}).observe({ type: "layout-shift", buffered: true });"""
PORTRAIT, LANDSCAPE = [(320, 568), (360, 640), (390, 844)], [(667, 375), (844, 390)]
SIZES = [(1280, 800), (1280, 640), *PORTRAIT, *LANDSCAPE]
AXE = os.environ.get("GAPT_AXE")  # the file axe.min.js of the npm package axe-core, for `accessible`
CHECKS: dict[str, Callable[["Opener"], None]] = {}


def check(function: Callable[["Opener"], None]) -> Callable[["Opener"], None]:
    CHECKS[function.__name__] = function
    return function


class Opener:
    """Opens the page in contexts of its own; what a page throws is a fault."""

    def __init__(self, browser: Any, url: str, shots: Path | None) -> None:
        self.browser, self.url, self.shots = browser, url, shots
        self.faults: list[str] = []

    @contextlib.contextmanager
    def __call__(self, size: tuple[int, int] = (1280, 800), stored: str | None = None, **options: Any) -> Iterator[Any]:
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        try:
            yield self._opened(context, stored)
        finally:
            context.close()

    def _opened(self, context: Any, stored: str | None) -> Any:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        for name in ("fake_midi.js", "fake_server.js"):
            page.add_init_script(path=str(TESTS / name))
        page.add_init_script(SHIFTS)
        if stored is not None:
            page.add_init_script(f"localStorage.getItem('gapt-live') ?? localStorage.setItem('gapt-live', {stored!r})")
        page.goto(self.url)
        page.wait_for_function("window.gaptLive?.connected && document.querySelector('[name=model]').value")
        return page

    def shot(self, page: Any, name: str) -> None:
        if self.shots:
            page.screenshot(path=str(self.shots / f"{name}.png"))


ENGINEERS = ["lookahead_frames", "commit_frames", "seed", "masked", "imagined"]
EVERYTHING = """() => {
  document.querySelector("details").open = true;
  const engineer = document.querySelector("[name=engineer]");
  if (!engineer.checked) engineer.click();
}"""


def play(page: Any, **settings: Any) -> None:
    """Sets fields, starts, and waits for a chord."""
    page.evaluate("document.querySelector('details').open = true")
    if settings.keys() & set(ENGINEERS):
        page.evaluate(EVERYTHING)
    for name, value in ({"intro_frames": 0} | settings).items():
        page.fill(f"[name={name}]", str(value))
        page.keyboard.press("Enter")
    page.evaluate("document.querySelector('details').open = false; window.scrollTo(0, 0)")
    page.click("#start")
    page.wait_for_function("gaptLive.frame >= 1 && gaptLive.scheduled > 0")


def sent(page: Any, kind: str) -> list[dict[str, Any]]:
    return page.evaluate("(kind) => fakeServer.sent.filter(({ type }) => type === kind)", kind)


def text(page: Any, selector: str) -> str:
    return page.locator(selector).text_content()


@check
def an_emptied_setting_is_its_default_and_nonsense_is_never_kept(open_page: Opener) -> None:
    with open_page() as page:
        page.fill("[name=bpm]", "90")
        page.fill("[name=bpm]", "")
        page.keyboard.press("Enter")
        assert page.input_value("[name=bpm]") == "120"
        kept = page.evaluate("localStorage.getItem('gapt-live')")
        assert json.loads(kept)["bpm"] == 120
    stored = json.dumps({"bpm": None, "temperature": "warm", "metronome": 7, "melodyVolume": [], "chordTimbre": 1})
    with open_page(stored=stored) as page:
        values = page.evaluate("Object.fromEntries(new FormData(document.querySelector('#settings')))")
        assert (values["bpm"], values["temperature"], values["metronome"]) == ("120", "1", "on")
        assert (values["melodyVolume"], values["chordTimbre"]) == ("75", "warm pad")
        play(page)
        assert all(value is not None for value in sent(page, "start")[0].values())
        kept = json.loads(page.evaluate("localStorage.getItem('gapt-live')"))
        assert "melodyVolume" not in kept and None not in kept.values()


@check
def limits_come_from_the_model(open_page: Opener) -> None:
    with open_page() as page:
        page.evaluate(EVERYTHING)
        ahead = "[name=lookahead_frames]"
        page.fill(ahead, "99")
        page.keyboard.press("Enter")
        assert page.input_value(ahead) == "32"
        page.select_option("[name=model]", "shorter")
        assert page.input_value(ahead) == "12" and page.get_attribute(ahead, "max") == "12"
        page.fill(ahead, "1")
        page.keyboard.press("Enter")
        assert page.input_value(ahead) == "2" and page.input_value("[name=commit_frames]") == "2"
        play(page, lookahead_frames=40)
        assert sent(page, "start")[0]["lookahead_frames"] == 12


@check
def the_silent_beats_cannot_change_while_playing(open_page: Opener) -> None:
    with open_page() as page:
        field = page.locator("[name=intro_frames]")
        assert field.is_enabled()
        play(page)
        assert field.is_disabled()
        page.click("#stop")
        assert field.is_enabled()


@check
def what_comes_next_is_right_at_every_frame(open_page: Opener) -> None:
    with open_page() as page:
        page.evaluate("fakeServer.lasts = 6")  # changes on and off the beat
        play(page, bpm=100)
        seen = page.evaluate("""() => new Promise((resolve) => {
          const found = [];
          const until = performance.now() + 4000;
          const look = () => {
            found.push([gaptLive.frame, document.querySelector("#next").textContent]);
            if (performance.now() < until) requestAnimationFrame(look);
            else resolve(found);
          };
          requestAnimationFrame(look);
        })""")
    names = ["C", "F", "G7", "B♭m7♭5"]
    wrong, frames = 0, set()
    for frame, said in seen:
        beats = -(-(6 - frame % 6) // 4)
        right = f"then {names[(frame // 6 + 1) % 4]} in {beats} beat{'s' * (beats > 1)}"
        wrong = wrong + 1 if said != right else 0
        assert wrong < 2, f"at frame {frame}: {said}, not {right}"  # one picture may lie between two frames
        frames.add(frame)
    assert len(frames) > 10


@check
def letters_never_change_a_select(open_page: Opener) -> None:
    with open_page() as page:
        page.evaluate("document.querySelector('details').open = true")
        for name in ("chordTimbre", "melodyTimbre", "model", "midiOutput"):
            select = page.locator(f"[name={name}]")
            before = select.input_value()
            assert select.locator("option").count() > 1 or name == "midiOutput"
            for letter in "abcdefghijklmnopqrstuvwxyz":
                select.focus()
                page.keyboard.press(letter)
                assert select.input_value() == before, f"{letter} changed {name}"
        select.focus()
        page.keyboard.down("d")
        assert page.locator(".key.mine").count() == 1
        page.keyboard.up("d")
        page.fill("[name=bpm]", "120")  # B among the letters taps a tempo
        page.keyboard.press("e")
        assert page.input_value("[name=bpm]") == "120"


@check
def notes_outside_the_range_move_it(open_page: Opener) -> None:
    with open_page() as page:
        page.click("#connect-midi")
        play(page)
        for pitch in (24, 103):
            low, high = page.evaluate("gaptLive.range")
            assert not low <= pitch <= high
            page.evaluate(f"fakeMidi.play({pitch}, true)")
            low, high = page.evaluate("gaptLive.range")
            assert low <= pitch <= high


@check
def a_lost_server_is_said_and_no_take_begins_by_itself(open_page: Opener) -> None:
    with open_page() as page:
        grey = page.evaluate("getComputedStyle(document.querySelector('#midi-light')).backgroundColor")
        play(page, bpm=240, beats_per_bar=1)
        light = "getComputedStyle(document.querySelector('#link-light')).backgroundColor"
        assert page.evaluate(light) != grey and text(page, "#chord") != "" and text(page, "#trouble") == ""
        page.evaluate("fakeServer.drop()")
        said = "document.querySelector('#trouble').textContent.startsWith('The server is not there.')"
        page.wait_for_function(f"{said} && document.querySelector('#chord').textContent !== ''")  # held at first
        open_page.shot(page, "lost")
        stage, said = page.locator(".stage").bounding_box(), page.locator("#trouble").bounding_box()
        assert said["width"] >= stage["width"] - 4 and stage["y"] < said["y"] < stage["y"] + stage["height"]
        assert page.evaluate(light) == grey
        page.wait_for_function("gaptLive.hasFaded && document.querySelector('#chord').textContent === ''")
        assert page.evaluate("gaptLive.phase") == "playing"
        page.evaluate("fakeServer.comeBack(true)")
        page.wait_for_function("gaptLive.phase === 'stopped'")
        page.wait_for_function("document.querySelector('#invitation').textContent.endsWith('Your take ends here.')")
        open_page.shot(page, "ended")
        page.wait_for_timeout(1500)
        assert page.evaluate("gaptLive.phase") == "stopped"
        assert [message.get("session") is None for message in sent(page, "start")] == [True, False]


@check
def a_server_that_comes_back_goes_on_with_the_take(open_page: Opener) -> None:
    with open_page() as page:
        play(page)
        before = page.evaluate("gaptLive.session")
        page.evaluate("fakeServer.drop(); fakeServer.comeBack(false)")
        page.wait_for_function("!gaptLive.connected")
        page.wait_for_function("gaptLive.connected && document.querySelector('#trouble').textContent === ''")
        frame = page.evaluate("gaptLive.frame")
        page.wait_for_function(f"gaptLive.commitUntil > {frame}")
        assert page.evaluate("gaptLive.session") == before and page.evaluate("gaptLive.phase") == "playing"


@check
def a_frozen_server_is_said(open_page: Opener) -> None:
    with open_page() as page:
        page.evaluate("fakeServer.freeze()")
        said = "document.querySelector('#{}').textContent.startsWith('The server does not answer')"
        light = "document.querySelector('#link-light').classList.contains('on')"
        page.wait_for_function(said.format("invitation"))
        assert not page.evaluate(light) and page.get_attribute("#start", "aria-disabled") == "true"
        page.evaluate("fakeServer.thaw()")
        page.wait_for_function(light)
        play(page, bpm=240, beats_per_bar=1)
        page.evaluate("fakeServer.freeze()")
        page.wait_for_function(said.format("trouble"))
        assert not page.evaluate(light)
        page.wait_for_function("gaptLive.hasFaded")
        ticks = len(sent(page, "tick"))
        page.wait_for_timeout(2000)
        assert len(sent(page, "tick")) <= ticks + 4  # of 32
        page.evaluate("fakeServer.thaw()")
        page.wait_for_function(f"{light} && document.querySelector('#trouble').textContent === ''")
        page.wait_for_function("!gaptLive.hasFaded && document.querySelector('#chord').textContent !== ''")
        assert page.evaluate("gaptLive.phase") == "playing" and len(sent(page, "start")) == 1


@check
def the_take_survives_a_reload(open_page: Opener) -> None:
    with open_page() as page:
        page.route("**/api/sessions/take*", lambda route: route.fulfill(status=200, body="here"))
        assert not page.locator("#downloads").is_visible()
        play(page)
        take = page.evaluate("gaptLive.session")
        page.reload()  # in mid-play
        page.wait_for_selector("#downloads", state="visible")
        assert text(page, "#downloads-of") == "Your last take"
        for kind in ("mid", "json", "wav"):
            assert page.get_attribute(f"#get-{kind}", "href").endswith(f"/{take}.{kind}")
        open_page.shot(page, "reloaded")
        page.unroute("**/api/sessions/take*")  # the server has forgotten it
        page.reload()
        page.wait_for_function("window.gaptLive?.connected")
        page.wait_for_timeout(500)
        assert not page.locator("#downloads").is_visible()


@check
def midi_is_asked_for_by_its_button_alone(open_page: Opener) -> None:
    with open_page() as page:
        play(page)
        assert page.evaluate("fakeMidi.asked") == 0
        page.evaluate("fakeMidi.refuse = true")
        page.click("#connect-midi")
        assert page.evaluate("fakeMidi.asked") == 1 and text(page, "#midi-text").startswith("MIDI was not allowed")
        page.evaluate("fakeMidi.refuse = false")
        page.click("#connect-midi")
        assert page.evaluate("fakeMidi.asked") == 2 and text(page, "#midi-text") == "Fake Keys"
        assert not page.locator("#connect-midi").is_visible()


@check
def space_starts_and_stops(open_page: Opener) -> None:
    with open_page() as page:
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Space")
        page.wait_for_function("gaptLive.phase === 'playing'")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Space")
        page.wait_for_function("gaptLive.phase === 'stopped'")
        page.focus("[name=metronome]")
        page.keyboard.press("Space")
        assert not page.is_checked("[name=metronome]") and page.evaluate("gaptLive.phase") == "stopped"
        page.focus("#start")
        page.keyboard.press("Space")  # once, by the button itself
        page.wait_for_function("gaptLive.phase === 'playing'")
        assert page.evaluate("document.activeElement.id") == "stop"
        page.keyboard.press("Space")
        page.wait_for_function("gaptLive.phase === 'stopped'")
        assert len(sent(page, "start")) == 2


@check
def a_demo_plays_and_a_key_takes_over(open_page: Opener) -> None:
    with open_page(stored=json.dumps({"bpm": 66, "intro_frames": 32})) as page:
        page.route("**/api/sessions/take*", lambda route: route.fulfill(status=200, body="here"))
        names = "['bpm', 'beats_per_bar', 'intro_frames']"
        fields = f"{names}.map((name) => document.querySelector(`[name=${{name}}]`).valueAsNumber)"
        assert page.evaluate("gaptLive.phase") == "idle"  # nothing sounds before a click
        page.click("#demo")
        page.wait_for_function("gaptLive.frame > 13")
        chords = page.evaluate("gaptLive.chords")
        assert [chords[str(frame)]["sym"] for frame in (7, 8)] == ["", "F"] and page.evaluate("gaptLive.scheduled") > 0
        open_page.shot(page, "demo")
        notes = [event for message in sent(page, "notes") for event in message["events"]]
        pressed = [(event["f"], event["p"]) for event in notes if event["on"]]
        assert pressed[:3] == [(0, 60), (4, 60), (8, 67)], pressed
        assert page.locator(".key.mine").count() == 1 and text(page, "#status-text").startswith("Demo")
        assert page.evaluate(fields) == [120, 4, 8] and sent(page, "start")[0]["intro_frames"] == 8
        page.keyboard.press("k")
        assert text(page, "#status-text") == "Playing"
        before = page.evaluate("gaptLive.sent.notes")
        page.wait_for_timeout(1500)
        assert page.evaluate("gaptLive.sent.notes") <= before + 3 and page.locator(".key.mine").count() == 0
        page.keyboard.press("Space")  # by the button that has the focus
        page.wait_for_function("gaptLive.phase === 'stopped'")
        assert page.evaluate(fields) == [66, 4, 32]
        kept = json.loads(page.evaluate("localStorage.getItem('gapt-live')"))
        assert (kept["bpm"], kept["intro_frames"]) == (66, 32)
        page.wait_for_function("document.querySelectorAll('#takes li').length === 1")
        # It is the player's own take now.
        assert not text(page, "#takes li span").startswith("Demo") and text(page, "#downloads-of") == "Download"
        page.click("#demo")
        page.wait_for_function("gaptLive.frame > 13")
        page.click("#stop")
        page.wait_for_function("document.querySelector('#takes li span').textContent === 'Demo, small'")
        assert text(page, "#downloads-of") == "The demo"
        open_page.shot(page, "after_demo")


@check
def a_tapped_tempo_is_set_and_kept(open_page: Opener) -> None:
    with open_page() as page:
        page.evaluate("""() => new Promise((resolve) => {
          const press = () => window.dispatchEvent(new KeyboardEvent("keydown", { code: "KeyB", key: "b" }));
          press();
          setTimeout(() => resolve(press()), 350);
        })""")
        tempo = int(page.input_value("[name=bpm]"))
        assert 30 < tempo <= 172 and tempo != 120, tempo
        assert json.loads(page.evaluate("localStorage.getItem('gapt-live')"))["bpm"] == tempo
        page.click("#tap")
        page.click("#tap")
        assert page.input_value("[name=bpm]") != str(tempo)
        page.keyboard.press("Space")
        page.wait_for_function("gaptLive.phase === 'playing'")
        assert sent(page, "start")[0]["bpm"] == int(page.input_value("[name=bpm]"))


GERMAN = """() => {
  const map = new Map([["KeyZ", "y"], ["KeyY", "z"], ["Semicolon", "ö"]]);
  Object.defineProperty(navigator, "keyboard", { value: { getLayoutMap: async () => map }, configurable: true });
  window.dispatchEvent(new Event("focus"));
}"""


@check
def keys_are_labelled_by_the_keyboards_layout(open_page: Opener) -> None:
    with open_page() as page:
        letters = "[...document.querySelectorAll('.key .letter')].map((e) => e.textContent).join('')"
        assert page.evaluate(letters) == "AWSEDFTGYHUJKOLP;"
        page.evaluate(GERMAN)
        page.wait_for_function(f"{letters} === 'AWSEDFTGZHUJKOLPÖ'")
        assert page.get_attribute("#octave-down", "aria-label") == "Octave down (Y)"
        help_text = text(page, ".help p:first-of-type")
        assert help_text.startswith("The keys A to Ö") and "Y and X" in help_text


@check
def the_players_view_is_the_default_and_engineer_shows_all(open_page: Opener) -> None:
    fields = [f"[name={name}]" for name in ENGINEERS]
    with open_page(stored=json.dumps({"imagined": True})) as page:
        play(page)
        assert sent(page, "start")[0]["lookahead_frames"] == 16
        page.wait_for_function("document.querySelector('#health-text').textContent.startsWith('Plans take')")
        open_page.shot(page, "player")
        page.evaluate("document.querySelector('details').open = true")
        for selector in (*fields, "#health", "#late", "#underruns", "#imagined-legend"):
            assert not page.locator(selector).is_visible(), selector
        page.check("[name=engineer]")
        page.evaluate("document.querySelector('details').open = true")
        for selector in (*fields, "#health", "#late", "#underruns", "#imagined-legend"):
            assert page.locator(selector).is_visible(), selector
        open_page.shot(page, "engineer")
        page.reload()
        page.wait_for_function("window.gaptLive?.connected")
        assert page.locator("#health").is_visible()


@check
def the_last_takes_are_listed(open_page: Opener) -> None:
    with open_page() as page:
        assert not page.locator("#takes").is_visible()
        page.route("**/api/sessions/take*", lambda route: route.fulfill(status=200, body="here"))
        for number in range(1, 4):
            play(page)
            page.click("#stop")
            page.wait_for_function(f"document.querySelectorAll('#takes li').length === {number}")
        page.reload()
        page.wait_for_function("document.querySelectorAll('#takes li').length === 3")
        assert page.locator("#takes li").first.locator("a").all_text_contents() == ["MIDI", "JSON", "WAV"]


def recorded(session: str, model: str, bars: int = 48) -> dict[str, Any]:
    """A take as the server hands it out: a scale over four chords, one of them off the beat."""
    names = [("C", [36, 48, 52, 55]), ("F", [41, 48, 53, 57]), ("G7", [43, 50, 53, 55, 59]), ("Bbm7b5", [46, 49, 52])]
    chords, notes = [], []
    for start in range(16, 16 * bars, 8):
        sym, pitches = names[start // 8 % 4]
        late = 2 * (start % 48 == 0)
        chords.append({"start": start + late, "end": start + 8, "sym": sym, "pitches": pitches})
    for on in range(0, 16 * bars, 3):
        notes.append({"p": 60 + [0, 2, 4, 5, 7, 9, 11, 12][on // 3 % 8], "on": on, "off": on + 2, "v": 80})
    tempos, meters = [{"f": 0, "bpm": 120}], [{"f": 0, "beats": 4}]
    times = {"frames": 16 * bars, "intro_frames": 16, "tempos": tempos, "meters": meters}
    return {"session": session, "model": model, **times, "chords": chords, "notes": notes}


class Kept:
    """Recordings that a server would have, answered to the page; what it asked to be played again."""

    def __init__(self, page: Any) -> None:
        self.page, self.models, self.asked = page, {}, []
        page.route("**/api/sessions/**", self.answer)

    def answer(self, route: Any) -> None:
        path, _, query = route.request.url.partition("/api/sessions/")[2].partition("?")
        session, _, form = path.replace("/", ".").rpartition(".")
        if form == "retake":
            self.asked.append((session, query))
            self.models["again"] = query.removeprefix("model=")
            route.fulfill(status=200, body=json.dumps({"session": "again"}))
        elif form == "take":
            route.fulfill(status=200, body=json.dumps(recorded(session, self.models.get(session, "small"))))
        else:
            route.fulfill(status=200, body="here")


@check
def a_take_is_shown_heard_named_and_played_by_another_band(open_page: Opener) -> None:
    with open_page() as page:
        kept = Kept(page)
        play(page)
        first = page.evaluate("gaptLive.session")
        page.click("#stop")
        page.wait_for_selector("#take-view", state="visible")
        assert page.evaluate("gaptLive.take") == first and page.evaluate("document.activeElement.id") == "take-new"
        bars = page.locator("#take-chart li > .unseen").all_text_contents()
        assert len(bars) == 48 and bars[0] == "Bar 1: no chord" and bars[1] == "Bar 2: G7, B♭m7♭5 on beat 3"
        assert bars[3] == "Bar 4: no chord, G7 on beat 1½, B♭m7♭5 on beat 3"
        place, said = "gaptLive.playback.position", "document.querySelector('#take-roll').ariaValueText"
        page.focus("#take-roll")
        page.keyboard.press("PageUp")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(place) == 20 and page.evaluate(said) == "bar 2, beat 2, G7"
        page.keyboard.press("End")
        assert page.evaluate(place) == 768
        page.keyboard.press("Home")
        page.keyboard.press("Space")
        page.wait_for_function(f"{place} > 3")
        assert text(page, "#take-play") == "Pause" and page.evaluate("gaptLive.phase") == "stopped"
        page.fill("#take-name", "Ada’s tune")
        page.keyboard.press("Enter")
        options = page.locator("#take-band option").all_text_contents()
        assert options == ["shorter"]
        before = page.evaluate(place)
        page.click("#take-retake")
        page.wait_for_function("gaptLive.take === 'again'")
        assert kept.asked == [(first, "model=shorter")] and page.evaluate(place) >= before
        assert page.evaluate("gaptLive.playback.playing") and text(page, "#take-by") == "shorter"
        page.click("#take-play")
        page.click("#take-retake")  # back: nothing is played anew
        page.wait_for_function(f"gaptLive.take === '{first}'")
        assert len(kept.asked) == 1 and page.input_value("#take-name") == "Ada’s tune"
        page.wait_for_function("document.querySelectorAll('#takes li').length === 2")
        assert page.locator("#takes li span").all_text_contents() == ["Ada’s tune, shorter", "Ada’s tune, small"]
        page.click("#take-close")
        assert not page.locator("#take-view").is_visible() and page.evaluate("document.activeElement.id") == "start"
        page.reload()
        page.click("#takes li button >> nth=1")
        page.wait_for_selector("#take-view", state="visible")
        assert page.evaluate("gaptLive.take") == first
        page.click("#take-new")
        page.wait_for_function("gaptLive.phase === 'playing'")
        assert not page.locator("#take-view").is_visible()


@check
def a_retake_is_called_off_with_its_view(open_page: Opener) -> None:
    with open_page() as page:
        Kept(page)
        play(page)
        page.click("#stop")
        page.wait_for_selector("#take-view", state="visible")
        asked: list[Any] = []
        page.route("**/retake?*", lambda route: asked.append(route))  # no answer
        off: list[str] = []
        page.on("requestfailed", lambda request: off.append(request.url.partition("?")[0].rpartition("/")[2]))
        for times in (1, 2):
            page.click("#take-retake")
            page.wait_for_function("document.querySelector('#take-said').textContent.startsWith('shorter plays')")
            page.click("#take-close")
            page.wait_for_timeout(100)
            assert off == ["retake"] * times == ["retake"] * len(asked), off
            page.click("#takes li button >> nth=0")
            page.wait_for_selector("#take-view", state="visible")
            assert text(page, "#take-said") == "" and page.get_attribute("#take-retake", "aria-disabled") is None


@check
def a_take_fits_every_screen(open_page: Opener) -> None:
    for size in ((1280, 800), (375, 667), (667, 375), (320, 568)):
        for scheme in ("light", "dark"):
            with open_page(size, color_scheme=scheme) as page:
                Kept(page)
                play(page)
                page.click("#stop")
                page.wait_for_selector("#take-view", state="visible")
                page.focus("#take-roll")
                for key in ("PageUp", "PageUp", "ArrowRight"):
                    page.keyboard.press(key)
                page.wait_for_timeout(200)
                open_page.shot(page, f"take_{size[0]}_{size[1]}_{scheme}")
                for name in ("play", "new", "close", "name", "roll", "chart", "retake", "mid"):
                    assert in_view(page, f"#take-{name}"), (size, name)
                assert not overflows(page), size
                assert page.locator("#take-roll").bounding_box()["height"] >= 80, size
                found = page.evaluate(CONTRAST, "#take-view button, #take-view input, #take-view select")
                faint = [(name, round(ratio, 2)) for name, ratio in found if ratio < 3]
                assert not faint and len(found) == 6, (scheme, faint, len(found))
                assert sum(shift["value"] for shift in page.evaluate("window.shifts")) == 0, size


def accessible(open_page: Opener) -> None:
    """axe-core finds nothing in any state of the page, light and dark, wide and on a phone."""
    for size in ((1280, 800), (390, 844)):
        for scheme in ("light", "dark"):
            with open_page(size, color_scheme=scheme) as page:
                Kept(page)
                found = {"ready": violations(page)}
                page.evaluate(EVERYTHING)
                found["all settings"] = violations(page)
                page.evaluate("document.querySelector('[name=engineer]').click()")
                play(page)
                found["playing"] = violations(page)
                page.click("#stop")
                page.wait_for_selector("#take-view", state="visible")
                found["a take"] = violations(page)
                page.click("#take-close")
                found["stopped"] = violations(page)
                assert not any(found.values()), (size, scheme, found)


def violations(page: Any) -> list[list[str]]:
    page.add_script_tag(path=AXE)
    run = "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, ...nodes.map((n) => n.html)]))"
    return page.evaluate(run)


if AXE:
    check(accessible)


DRAWN = """() => {
  const canvas = document.querySelector("#roll");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const drawn = new Set();
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) drawn.add(data.slice(at, at + 3).join());
  return drawn.size;
}"""
STATES = """() => {
  const [mine, theirs, free] = document.querySelectorAll(".key.white");
  mine.classList.add("mine");
  theirs.classList.add("theirs");
  const beats = document.querySelector("#beats");
  beats.classList.remove("away");
  const [on, off] = [1, 2].map(() => beats.appendChild(document.createElement("span")));
  on.classList.add("on");
  const [connected, not] = document.querySelectorAll(".light");
  const points = { on, off, connected, not };
  const boxes = Object.entries(points).map(([name, element]) => [name, element.getBoundingClientRect(), 0.5]);
  boxes.push(...Object.entries({ mine, theirs, free }).map(([name, key]) => [name, key.getBoundingClientRect(), 0.85]));
  return boxes.map(([name, box, down]) => [name, box.x + box.width / 2, box.y + box.height * down]);
}"""
PIXELS = """async ([png, points]) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const pen = new OffscreenCanvas(image.width, image.height).getContext("2d");
  pen.drawImage(image, 0, 0);
  return Object.fromEntries(points.map(([name, x, y]) => [name, pen.getImageData(x, y, 1, 1).data.join()]));
}"""


@check
def forced_colours_keep_states_apart(open_page: Opener) -> None:
    for scheme in ("light", "dark"):
        with open_page(forced_colors="active", color_scheme=scheme) as page:
            assert page.evaluate("matchMedia('(forced-colors: active)').matches")
            points = page.evaluate(STATES)
            png = base64.b64encode(page.screenshot()).decode()
            found = page.evaluate(PIXELS, [png, points])
            assert len({found["mine"], found["theirs"], found["free"]}) == 3, found
            assert found["on"] != found["off"] and found["connected"] != found["not"], found
        with open_page(forced_colors="active", color_scheme=scheme) as page:
            play(page)
            page.keyboard.down("s")
            page.wait_for_timeout(300)
            assert page.evaluate(DRAWN) >= 4
            open_page.shot(page, f"forced_{scheme}")


def in_view(page: Any, selector: str) -> bool:
    """Whether all of an element can be seen without scrolling."""
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    return (
        box["x"] >= -0.5
        and box["y"] >= -0.5
        and box["x"] + box["width"] <= size["width"] + 0.5
        and box["y"] + box["height"] <= size["height"] + 0.5
    )


def overflows(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@check
def at_200_percent_nothing_is_cut_off(open_page: Opener) -> None:
    for size in ((640, 400), (640, 360), (512, 384), (320, 320)):  # 1280x800, 1280x720, 1024x768; and 400 %
        with open_page(size, device_scale_factor=2) as page:
            assert in_view(page, "#start") and in_view(page, "#keys"), size
            assert size == (320, 320) or not is_cut(page, "#welcome"), size  # there it scrolls
            open_page.shot(page, f"zoom_{size[0]}_{size[1]}_idle")
            page.evaluate(EVERYTHING)
            assert not overflows(page), size
            play(page)
            for selector in ("#stop", "#forget", "#panic", "#chord", "#keys", "#octave-up", "#roll"):
                assert in_view(page, selector), (size, selector)
            open_page.shot(page, f"zoom_{size[0]}_{size[1]}")
            assert not overflows(page), size


@check
def a_phone_has_wide_keys_and_the_piano_in_view(open_page: Opener) -> None:
    for size in (*PORTRAIT, *LANDSCAPE):
        with open_page(size, has_touch=True, is_mobile=True, device_scale_factor=2) as page:
            for phase in ("idle", "playing"):
                if phase == "playing":
                    play(page)
                widths = page.locator(".key.white").evaluate_all(
                    "keys => keys.map((k) => k.getBoundingClientRect().width)"
                )
                assert len(widths) >= 8 and min(widths) >= 36, (size, min(widths))
                assert in_view(page, "#keys") and in_view(page, "#roll"), (size, phase)
                assert page.locator("#keys").bounding_box()["height"] >= 90, size
                assert page.locator("#roll").bounding_box()["height"] >= 100, (size, phase)
                assert in_view(page, "#start" if phase == "idle" else "#stop") and not overflows(page), (size, phase)
                assert not is_cut(page, "#welcome" if phase == "idle" else "#next"), (size, phase)
                open_page.shot(page, f"phone_{size[0]}_{size[1]}_{phase}")


def is_cut(page: Any, selector: str) -> bool:
    """Whether some of an element's content lies outside of it."""
    return page.locator(selector).evaluate(
        "e => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1"
    )


CONTRAST = """(selector) => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colours) => {
    const [r, g, b] = rgb(colours).map((v) => (v / 255 <= 0.04045 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const layers = (element) => {
    const found = [];
    for (let at = element; at; at = at.parentElement) found.unshift(getComputedStyle(at).backgroundColor);
    return found;
  };
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const counts = (element) =>
    element.checkVisibility({ visibilityProperty: true }) && element.ariaDisabled !== "true";
  return [...document.querySelectorAll(selector)].filter(counts).map((element) => {
    const outside = layers(element.parentElement);
    const edge = light([...outside, getComputedStyle(element).borderBottomColor]);
    const fill = light(layers(element));
    const around = light(outside);
    return [element.name || element.id || element.className, Math.max(ratio(edge, around), ratio(fill, around))];
  });
}"""
CONTROLS = "button, select, input[type=number], input:not([type]), .light, #beats span, .key.white"


@check
def every_control_stands_out(open_page: Opener) -> None:
    for scheme in ("light", "dark"):
        with open_page(color_scheme=scheme) as page:
            page.evaluate(EVERYTHING)
            found = page.evaluate(CONTRAST, CONTROLS)
            play(page)
            open_page.shot(page, f"wide_{scheme}")
            page.evaluate(EVERYTHING)
            found += page.evaluate(CONTRAST, CONTROLS)
            edges = page.evaluate(
                CONTRAST.replace("outside = layers(element.parentElement)", "outside = layers(element)"), ".key.white"
            )
        faint = [(name, round(ratio, 2)) for name, ratio in [*found, *edges] if ratio < 3]
        assert not faint and len(found) > 40, (scheme, faint)


@check
def nothing_moves(open_page: Opener) -> None:
    for size in SIZES:
        with open_page(size, stored='{"engineer": true}') as page:
            page.wait_for_timeout(300)
            play(page)
            for key in "adgadgadg":
                page.keyboard.down(key)
                page.wait_for_timeout(120)
                page.keyboard.up(key)
            page.wait_for_timeout(1500)  # the time of a plan is shown once a second
            page.click("#stop")
            page.wait_for_timeout(500)
            open_page.shot(page, f"stopped_{size[0]}_{size[1]}")
            shifts = page.evaluate("window.shifts")
            assert not overflows(page), size
        assert sum(shift["value"] for shift in shifts) == 0, (size, shifts[:4])


LOUDNESS = """async ([part, timbre, volume, voices]) => {
  const { Sound } = await import("/sound.js");
  const rate = 48000;
  const seconds = 4;
  const context = new OfflineAudioContext(2, rate * seconds, rate);
  const sound = new Sound(context);
  const volumes = { melodyVolume: volume, chordVolume: volume, clickVolume: volume };
  sound.set({ ...volumes, melodyTimbre: timbre, chordTimbre: timbre });
  if (part === "melody") {
    const scale = [60, 62, 64, 65, 67, 69, 71, 72];
    scale.forEach((pitch, index) => {
      for (let voice = 0; voice < voices; voice++) sound.note(pitch + 3 * voice, 88, index / 2, index / 2 + 0.45);
    });
  } else {
    const chords = [[36, 48, 52, 55], [43, 50, 53, 55, 59]];
    chords.reduce((before, pitches, index) => sound.strike(pitches, 2 * index, before), null);
  }
  const heard = await context.startRendering();
  const highest = (channel) => heard.getChannelData(channel).reduce((most, at) => Math.max(most, Math.abs(at)), 0);
  const peak = Math.max(highest(0), highest(1));
  const weighing = new OfflineAudioContext(2, heard.length, rate); // ITU-R BS.1770, tables 1 and 2
  const shelf = weighing.createIIRFilter(
    [1.53512485958697, -2.69169618940638, 1.19839281085285], [1, -1.69065929318241, 0.73248077421585]);
  const high = weighing.createIIRFilter([1, -2, 1], [1, -1.99004745483398, 0.99007225036621]);
  const source = new AudioBufferSourceNode(weighing, { buffer: heard });
  source.connect(shelf).connect(high).connect(weighing.destination);
  source.start();
  const weighted = await weighing.startRendering();
  let sum = 0;
  for (const channel of [0, 1]) for (const sample of weighted.getChannelData(channel)) sum += sample ** 2;
  const mono = heard.getChannelData(0);
  let [energy, steps] = [0, 0]; // of samples and their differences: the mean frequency
  for (let at = 1; at < mono.length; at++) {
    energy += mono[at] ** 2;
    steps += (mono[at] - mono[at - 1]) ** 2;
  }
  const frequency = (rate / Math.PI) * Math.asin(Math.sqrt(steps / energy) / 2);
  return { loudness: -0.691 + 10 * Math.log10(sum / weighted.length), peak: 20 * Math.log10(peak), frequency };
}"""


@check
def timbres_are_equally_loud(open_page: Opener) -> None:
    with open_page() as page:
        timbres = {
            "melody": ["electric piano", "flute", "pluck"],
            "chords": ["warm pad", "electric piano", "organ"],
        }
        for part, names in timbres.items():
            found = {name: page.evaluate(LOUDNESS, [part, name, 60, 1]) for name in names}
            loud = [each["loudness"] for each in found.values()]
            assert max(loud) - min(loud) <= 2, found
            assert all(each["peak"] < -1 for each in found.values()), found
            if part == "chords":
                assert found["warm pad"]["frequency"] > 300, found


@check
def the_limiter_holds_what_is_loud_and_lets_the_rest_pass(open_page: Opener) -> None:
    with open_page() as page:
        soft, softer = (page.evaluate(LOUDNESS, ["melody", "flute", volume, 1]) for volume in (50, 25))
        fall = 40 * math.log10(2)  # a volume counts squared
        assert abs(soft["loudness"] - softer["loudness"] - fall) < 0.3, (soft, softer)
        loud = page.evaluate(LOUDNESS, ["melody", "pluck", 100, 12])
        assert -4 < loud["peak"] < 0, loud


@contextlib.contextmanager
def served_files() -> Iterator[str]:
    """The page's files on a free port: their address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(PAGE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def fault_of(name: str, open_page: Opener) -> str:
    """What a check found; empty where all is well."""
    open_page.faults.clear()
    try:
        CHECKS[name](open_page)
    except Exception:
        return traceback.format_exc()
    return "; ".join(open_page.faults)


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(CHECKS)}")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    args = parser.parse_args()
    with served_files() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser, args=FLAGS)
        open_page = Opener(browser, url, args.shots)
        print(json.dumps({name: fault_of(name, open_page) for name in args.names or CHECKS}))
        browser.close()


if __name__ == "__main__":
    main()
