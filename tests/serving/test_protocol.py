"""Requests as bytes: tensors behind the JSON, compression, wanted outputs, versions, and what is refused."""

import gzip
import json
import tracemalloc
import zlib

import numpy as np
import pytest

from gapt_jax.export.bundle import _melodies
from gapt_jax.runtime.web import MAX_BODY
from gapt_jax.serving import protocol
from tests.export.bundles import FRAMES
from tests.serving.wire import INFER, MODEL, binary, frame, tensor, tensors

MELODY = _melodies(FRAMES)[:1]
SONG = {"inputs": [tensor("melody", MELODY, data=MELODY.reshape(-1).tolist())], "parameters": {"seed": 3}}
JSON = json.dumps(SONG).encode()
BYTES = {"parameters": {"binary_data": True}}


@pytest.fixture(scope="module")
def expected(client):
    return tensors(client.post(INFER, content=JSON))


def refused(answer, status, words=""):
    assert answer.status_code == status and words in answer.json()["error"], answer.text
    assert set(answer.json()) == {"error"} and "\n" not in answer.json()["error"]


def test_metadata_declares_what_is_taken_and_given(client, expected):
    found = client.get(f"/v2/models/{MODEL}").json()
    declared = {put["name"]: put["datatype"] for put in (*found["inputs"], *found["outputs"])}
    assert declared == dict.fromkeys(("melody", "note", "chords", "chord"), "INT64") | {"symbols": "BYTES"}
    for datatype in ("INT64", "INT32"):
        body = {"inputs": [SONG["inputs"][0] | {"datatype": datatype}], "parameters": {"seed": 3}}
        answer = client.post(INFER, json=body)
        assert [output["datatype"] for output in answer.json()["outputs"]] == ["INT64", "BYTES"]
        assert (tensors(answer)["chords"] == expected["chords"]).all()
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]


def test_version_1_has_the_same_paths(client, expected):
    place = f"/v2/models/{MODEL}/versions"
    assert client.get(f"{place}/1").json() == client.get(f"/v2/models/{MODEL}").json()
    assert client.get(f"{place}/1/ready").json()["ready"]
    assert (tensors(client.post(f"{place}/1/infer", content=JSON))["chords"] == expected["chords"]).all()
    for path in (f"{place}/2", f"{place}/2/ready", f"{place}/x"):
        refused(client.get(path), 404, "it has 1")
    refused(client.post(f"{place}/2/infer", content=JSON), 404, "it has 1")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/octet-stream", "application/json"])
def test_a_body_is_json_whatever_its_type(client, expected, kind):
    answer = client.post(INFER, content=JSON, headers={"content-type": kind} if kind else {})
    assert (tensors(answer)["chords"] == expected["chords"]).all()


@pytest.mark.parametrize("dtype", ["<i8", "<i4"])
def test_tensors_behind_the_json(client, expected, dtype):
    answer = client.post(INFER, **binary("melody", MELODY, dtype, parameters={"seed": 3}))
    assert (tensors(answer)["chords"] == expected["chords"]).all() and "data" in answer.json()["outputs"][0]
    wish = {"parameters": {"seed": 3, "binary_data_output": True}}
    answer = client.post(INFER, **binary("melody", MELODY, dtype, **wish))
    assert answer.headers["content-type"] == "application/octet-stream"
    found = tensors(answer)
    assert (found["chords"] == expected["chords"]).all() and (found["symbols"] == expected["symbols"]).all()


def test_wanted_outputs(client, expected):
    names = {"outputs": [{"name": "symbols"}, {"name": "chords"} | BYTES]}
    found = tensors(answer := client.post(INFER, json=SONG | names))
    assert list(found) == ["symbols", "chords"] and "Inference-Header-Content-Length" in answer.headers
    assert (found["chords"] == expected["chords"]).all() and (found["symbols"] == expected["symbols"]).all()
    one = client.post(INFER, json=SONG | {"outputs": [{"name": "chords"}]}).json()["outputs"]
    assert [output["name"] for output in one] == ["chords"] and "data" in one[0]
    assert list(tensors(client.post(INFER, json=SONG | {"outputs": []}))) == ["chords", "symbols"]
    mixed = {"outputs": [{"name": "chords", "parameters": {"binary_data": False}}, {"name": "symbols"}]}
    wish = {"parameters": {"seed": 3, "binary_data_output": True}}
    chords, symbols = client.post(INFER, **binary("melody", MELODY, **mixed, **wish)).content.split(b"symbols")
    assert b'"data"' in chords and b'"data"' not in symbols
    for outputs, words in (
        ([{"name": "notes"}], "no output 'notes'"),
        ([{"name": "chord"}], "no output 'chord'"),
        ([{"name": "chords"}] * 2, "twice"),
        ([{"name": "chords", "parameters": {"classification": 3}}], "classes"),
        ([{"name": "chords", "parameters": {"shared_memory_region": "a"}}], "shared memory"),
        ([{}], "outputs.0.name"),
        ("chords", "outputs"),
    ):
        refused(client.post(INFER, json=SONG | {"outputs": outputs}), 400, words)


def test_a_session_in_bytes(client):
    expected = tensors(client.post(INFER, content=JSON))["chords"][0]
    options = {"sequence_id": 2**63, "seed": 3, "binary_data_output": True}
    start = {"parameters": options | {"sequence_start": True}}
    played = [tensors(client.post(INFER, **binary("note", np.zeros((1, 0)), **start)))["chord"].tolist()]
    for number in range(FRAMES):
        more = {"parameters": options | {"sequence_end": number == FRAMES - 1}}
        played.append(tensors(client.post(INFER, **binary("note", MELODY[:, number], **more)))["chord"].tolist())
    assert played == [[[chord]] for chord in expected] + [[[]]]  # after the last frame there is no next chord
    refused(client.post(INFER, json=frame(2**63, [3])), 404)


def test_empty_data_may_be_null_beside_a_size_of_0(client):
    asked = tensor("note", np.zeros((1, 0)), data=None, parameters={"binary_data_size": 0})
    body = {"inputs": [asked], "parameters": {"sequence_id": "null", "sequence_start": True, "sequence_end": True}}
    assert tensors(client.post(INFER, json=body))["chord"].shape == (1, 1)


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)])
def test_compressed_bodies(client, expected, name, pack):
    answer = client.post(INFER, content=pack(JSON), headers={"content-encoding": name.upper()})
    assert (tensors(answer)["chords"] == expected["chords"]).all()
    request = binary("melody", MELODY, parameters={"seed": 3})
    request["headers"]["content-encoding"] = name
    answer = client.post(INFER, **request | {"content": pack(request["content"])})
    assert (tensors(answer)["chords"] == expected["chords"]).all()


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [
        (gzip.compress(b" " * (1 << 26), mtime=0), "gzip", 413),
        (zlib.compress(b" " * (MAX_BODY + 1)), "deflate", 413),
        (gzip.compress(JSON, mtime=0)[:-9], "gzip", 400),
        (gzip.compress(JSON, mtime=0) + b"x", "gzip", 400),
        (gzip.compress(JSON, mtime=0) * 2, "gzip", 400),
        (zlib.compress(JSON), "gzip", 400),
        (gzip.compress(JSON, mtime=0), "deflate", 400),
        (b"", "gzip", 400),
        (JSON, "gzip", 400),
        (JSON, "br", 415),
        (JSON, "gzip, gzip", 415),
    ],
    ids=str,
)
def test_bad_compression(client, content, encoding, status):
    tracemalloc.start()
    refused(client.post(INFER, content=content, headers={"content-encoding": encoding}), status)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("length", ["", "-1", "x", "1e3", "٣", "1" * 5000, str(10**7), "0", "1", str(len(JSON) - 1)])
def test_a_bad_length_of_the_json(client, length):
    refused(client.post(INFER, content=JSON, headers={"Inference-Header-Content-Length": length.encode()}), 400)


def melody(**changes):
    return {"inputs": [tensor("melody", [[3, 3]], data=[3, 3]) | changes]}


@pytest.mark.parametrize(
    "body",
    [
        *(melody(shape=shape, data=[]) for shape in ([-1, 0], [0, 2**70], [0, -1], [2**70, 0], [0, 2**31])),
        *(melody(shape=shape) for shape in ([], [2], [1, 1, 2], [1, 2.0], [1, "2"], [True, 2], None, [1, 2**70])),
        *(melody(shape=shape) for shape in ([-1, -2], [-2, -1], [-(2**70), 0])),
        *(melody(data=data) for data in ([True, 3], [None, 3], [{}, 3], [[3], [3]], [[[3, 3]]], "33", {}, [3, 3, 3])),
        *(melody(data=data) for data in ([3, 2**63], [3, -(2**63) - 1], [3, 1e300], [3, "\ud800"], [3, [3]], [-3, 3])),
        *(melody(name=name) for name in ("\ud800", "a\nb", "", "a" * 65, 3, None)),
        *(melody(datatype=datatype) for datatype in ("FP64", "BYTES", "int64", "\n", 3, "UINT8", "\udfff")),
        *(melody(parameters=bad) for bad in ({"binary_data_size": n} for n in (-1, 2**70, 16, 0, "0", True, 1.5))),
        melody(parameters={"binary_data_size": None}, data=None),
        melody(parameters={"shared_memory_region": "a"}),
        melody(parameters=[]),
        melody() | {"id": "\ud800"},
        melody() | {"id": 3},
        melody() | {"parameters": {"temperature": 10**400}},
        melody() | {"parameters": {"sequence_id": 2**64}},
        melody() | {"parameters": {"sequence_id": 0}},
        melody() | {"parameters": {"sequence_id": "\ud800"}},
        melody() | {"parameters": {"sequence_start": 1}},
        melody() | {"parameters": []},
    ],
    ids=lambda body: json.dumps(body)[:90],
)  # fmt: skip
def test_bad_tensors_get_one_sentence(client, body):
    refused(client.post(INFER, content=json.dumps(body).encode()), 400)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff\xfe", b"null", b"3", b'"a"', b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000),
        *(b'{"inputs": [NaN]}', JSON.replace(b'"seed": 3', b'"temperature": NaN'), JSON + b"x"),
        JSON.replace(b'"seed": 3', b'"temperature": 1e999'),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_bad_json_gets_one_sentence(client, content):
    refused(client.post(INFER, content=content), 400)


def test_texts_of_different_lengths_take_no_memory():
    data = ["a" * 400_000, *["b"] * 100_000]
    tracemalloc.start()
    with pytest.raises(protocol.Refusal):
        protocol.parsed(melody(data=data, shape=[1, len(data)]), b"")
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_errors_are_objects_everywhere(client):
    refused(client.get("/nothing"), 404)
    refused(client.get("/v2/models/%0A/ready"), 404)
    refused(client.get(INFER), 405)
    assert client.get(INFER).headers["allow"] == "POST"
    refused(client.post("/v2", content=b"{}"), 405)


def test_a_fault_of_ours_is_an_object_too(bundle_folder, monkeypatch):
    from starlette.testclient import TestClient

    from gapt_jax.serving.player import Player
    from gapt_jax.serving.server import make_app

    player = Player(bundle_folder)
    monkeypatch.setattr(Player, "advance", lambda *_: 1 / 0)
    with TestClient(make_app([player], sessions=1), raise_server_exceptions=False) as broken:
        for _ in range(2):  # and its session is gone
            assert broken.post(INFER, json=frame("a", [], sequence_start=True)).status_code == 200
            refused(broken.post(INFER, json=frame("a", [3])), 500, "the server failed")
            refused(broken.post(INFER, json=frame("a", [3])), 404)
        assert 'status="500"} 2.0' in broken.get("/metrics").text
