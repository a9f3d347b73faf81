"""The Open Inference Protocol: whole melodies, sessions, what is refused, many at once, a server that is killed."""

import asyncio
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import pytest

from gapt_jax.export.bundle import _melodies
from gapt_jax.serving import server, sessions
from gapt_jax.serving.player import Player, Sampling
from gapt_jax.vocabulary import SILENCE
from tests.export.bundles import FRAMES, VOCABULARY
from tests.serving import load

MODEL = "bundle"
INFER = f"/v2/models/{MODEL}/infer"
MELODIES = _melodies(FRAMES)


def song(melody, **parameters):
    melody = np.atleast_2d(melody)
    data = {"name": "melody", "shape": list(melody.shape), "datatype": "INT32", "data": melody.reshape(-1).tolist()}
    return {"inputs": [data], "parameters": parameters}


def frame(identity, notes, **parameters):
    data = {"name": "note", "shape": [1, len(notes)], "datatype": "INT32", "data": [int(note) for note in notes]}
    return {"inputs": [data], "parameters": {"sequence_id": identity, **parameters}}


def chords_of(answer) -> list[int]:
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def play(client, identity, melody, seed) -> list[int]:
    """One session from beginning to end."""
    found = []
    for number in range(len(melody)):
        notes = melody[number - 1 : number] if number else []
        options = {"sequence_start": number == 0, "sequence_end": number == len(melody) - 1, "seed": seed}
        found += chords_of(client.post(INFER, json=frame(identity, notes, **options)))
    return found


def test_metadata_and_health(client):
    assert client.get("/v2").json()["name"] == "gapt-jax"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"/v2/models/{MODEL}/ready").json()["ready"]
    found = client.get(f"/v2/models/{MODEL}").json()
    assert found["parameters"]["max_frames"] == FRAMES and len(found["parameters"]["weights_sha256"]) == 64


def test_sessions_play_what_whole_melodies_get(client):
    answer = client.post(INFER, json=song(MELODIES, seed=5) | {"id": "x"})
    both = np.reshape(chords_of(answer), MELODIES.shape)
    assert answer.json()["id"] == "x"
    alone = chords_of(client.post(INFER, json=song(MELODIES[0], seed=5)))
    assert alone == both[0].tolist() == play(client, "a", MELODIES[0], seed=5)
    assert alone != chords_of(client.post(INFER, json=song(MELODIES[0], seed=6)))
    tables = VOCABULARY.tables
    assert all(tables.is_chord[token] or token == SILENCE for token in alone)


def test_several_notes_at_once(client):
    expected = chords_of(client.post(INFER, json=song(MELODIES[0])))
    first = chords_of(client.post(INFER, json=frame("n", MELODIES[0][:4], sequence_start=True)))
    then = chords_of(client.post(INFER, json=frame("n", MELODIES[0][4:7], sequence_end=True)))
    assert [*first, *then] == [expected[4], expected[7]]


def test_symbols_name_the_chords(client):
    answer = client.post(INFER, json=song(MELODIES[0], masked=True)).json()
    chords, symbols = (output["data"] for output in answer["outputs"])
    for token, symbol in zip(chords, symbols, strict=True):
        if token == SILENCE:
            assert symbol == ""
        else:
            name = symbol if token >= VOCABULARY.chord_onset else symbol[1:-1]
            assert VOCABULARY.describe(token).endswith(f" {name}")


def test_temperature_0_takes_the_likeliest(client):
    one = chords_of(client.post(INFER, json=song(MELODIES[0], temperature=0, seed=1)))
    assert one == chords_of(client.post(INFER, json=song(MELODIES[0], temperature=0, seed=2)))


NOTES = {"name": "melody", "shape": [1, 2], "datatype": "INT32", "data": [3, 3]}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "inputs: Field required"),
        ([], 400, "valid dictionary"),
        ({"inputs": []}, 400, "inputs"),
        ({"inputs": [NOTES, NOTES]}, 400, "inputs"),
        ({"inputs": [NOTES | {"name": "notes"}]}, 400, "called 'melody'"),
        ({"inputs": [NOTES | {"datatype": "FP32"}]}, 400, "not INT32"),
        ({"inputs": [NOTES | {"data": [3]}]}, 400, "of the shape [1, 2]"),
        ({"inputs": [NOTES | {"data": [3, 0.5]}]}, 400, "whole numbers"),
        ({"inputs": [NOTES | {"data": [3, "x"]}]}, 400, "whole numbers"),
        ({"inputs": [NOTES | {"data": [[3], 3]}]}, 400, "whole numbers"),
        ({"inputs": [NOTES | {"data": [3, 2**80]}]}, 400, "input 'melody'"),
        ({"inputs": [NOTES | {"data": [3, 1]}]}, 400, "token that is no note"),
        ({"inputs": [NOTES | {"data": [3, 300]}]}, 400, "token that is no note"),
        ({"inputs": [NOTES | {"shape": [-1, -2]}]}, 400, "of the shape"),
        ({"inputs": [NOTES | {"shape": [0, 0], "data": []}]}, 400, "1 to 64 songs"),
        ({"inputs": [NOTES | {"shape": [1, FRAMES + 1], "data": [3] * (FRAMES + 1)}]}, 400, f"1 to {FRAMES} frames"),
        ({"inputs": [NOTES], "parameters": {"temperature": -1}}, 400, "temperature"),
        ({"inputs": [NOTES], "parameters": {"temperature": "hot"}}, 400, "temperature"),
        ({"inputs": [NOTES], "parameters": {"seed": 2**40}}, 400, "seed"),
        ({"inputs": [NOTES], "parameters": {"sequence_id": "nobody"}}, 400, "called 'note'"),
        (frame("nobody", [3]), 404, "begin it with sequence_start"),
        (frame("a" * 100, [3]), 400, "sequence_id"),
        (frame("long", [3] * FRAMES, sequence_start=True), 409, f"longer than {FRAMES} frames"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_requests_get_one_sentence(client, body, status, words):
    answer = client.post(INFER, json=body)
    assert answer.status_code == status and words in answer.json()["error"], answer.text
    assert "\n" not in answer.json()["error"]


def test_other_faults(client):
    assert client.post("/v2/models/other/infer", json=song(MELODIES[0])).status_code == 404
    assert client.get("/nothing").json() == {"error": "Not Found"}
    assert client.post(INFER, content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post(INFER, content=b"x" * (server.MAX_BODY + 1)).status_code == 413
    assert client.post(INFER, content=iter([b"{}"])).status_code == 411


def test_sessions_are_limited_and_forgotten(client, monkeypatch):
    for number in range(8):
        assert client.post(INFER, json=frame(f"s{number}", [], sequence_start=True)).status_code == 200
    assert client.post(INFER, json=frame("s8", [], sequence_start=True)).status_code == 503
    assert client.post(INFER, json=frame("s7", [], sequence_start=True)).status_code == 200  # begins anew
    assert "gapt_sessions 8.0" in client.get("/metrics").text
    monkeypatch.setattr(sessions, "IDLE_SECONDS", -1)
    assert client.post(INFER, json=frame("s8", [], sequence_start=True)).status_code == 200
    assert "gapt_sessions 1.0" in client.get("/metrics").text
    assert client.post(INFER, json=frame("s8", [3], sequence_end=True)).status_code == 200
    assert "gapt_sessions 0.0" in client.get("/metrics").text


def test_requests_a_second_are_limited(client, monkeypatch):
    monkeypatch.setattr(server, "REQUESTS_PER_SECOND", 3)
    assert 429 in [client.get("/v2").status_code for _ in range(12)]


def test_metrics_count(client):
    text = client.get("/metrics").text
    assert re.search(rf'gapt_requests_total{{model="{MODEL}",status="200"}} [1-9]', text)
    assert f'gapt_seconds_count{{kind="frame",model="{MODEL}"}}' in text


def test_concurrent_sessions_do_not_mix(bundle_folder, client):
    player = Player(bundle_folder)
    expected = {seed: player.accompany(MELODIES[:1], Sampling(seed))[0].tolist() for seed in range(8)}
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        played = threads.map(lambda seed: play(client, f"mix{seed}", MELODIES[0], seed), expected)
        assert dict(zip(expected, played, strict=True)) == expected


def started(folder: Path) -> tuple[subprocess.Popen, str]:
    """A server of its own on a free port."""
    command = [sys.executable, "-m", "gapt_jax", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"XLA_FLAGS": ""})
    for line in process.stdout:
        if match := re.search(r"http://[\d.]+:\d+", line):
            url = match.group()
            break
    else:
        raise AssertionError("the server ended before it served")
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5)
            return process, url
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def test_killed_in_mid_request_it_starts_clean(bundle_folder):
    process, url = started(bundle_folder)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            asked = threads.submit(httpx.post, url + INFER, json=song(np.repeat(MELODIES, 32, axis=0)), timeout=60)
            time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                asked.result()
    finally:
        process.kill()
        process.wait()
    process, url = started(bundle_folder)
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            assert play(client, "again", MELODIES[0], 0) == chords_of(client.post(INFER, json=song(MELODIES[0])))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) is not None
    finally:
        process.kill()
        process.wait()


def test_a_taken_port_is_one_sentence(bundle_folder):
    process, url = started(bundle_folder)
    try:
        command = [sys.executable, "-m", "gapt_jax", "serve", str(bundle_folder), "--port", url.rpartition(":")[2]]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": ""}, check=False)
        assert done.returncode == 2 and "choose another --port" in done.stderr and "Traceback" not in done.stderr
    finally:
        process.kill()
        process.wait()


def test_a_short_load_loses_and_crosses_nothing(bundle_folder):
    process, url = started(bundle_folder)
    try:
        found = asyncio.run(load.run(url, MODEL, sessions=16, seconds=2, bpm=240, frames=FRAMES))
        assert found["sessions"] >= 16 and found["wrong"] == found["refused"] == 0, found
    finally:
        process.kill()
        process.wait()
