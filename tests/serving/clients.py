"""Plays a melody by Triton's client and by KServe's, unchanged: ``python clients.py HOST:PORT MODEL FRAMES``.

It runs in an environment of its own, which has both clients and not this package. Prints one JSON object with the
chords that each way gave."""

import asyncio
import json
import sys

import kserve
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

SEED = {"seed": 5}


def triton_input(name, notes, is_binary):
    notes = np.array([notes], np.int64)
    found = triton.InferInput(name, list(notes.shape), "INT64")
    found.set_data_from_numpy(notes, binary_data=is_binary)
    return [found]


def by_triton(url, model, melody):
    client, found = triton.InferenceServerClient(url), {}
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model, "1")
    assert client.get_server_metadata()["name"] == "gapt-jax"
    declared = {put["name"]: put["datatype"] for put in client.get_model_metadata(model, "1")["inputs"]}
    assert declared == {"melody": "INT64", "note": "INT64"}
    for is_binary in (True, False):
        for packed in (None, "gzip", "deflate"):
            asked = triton_input("melody", melody, is_binary)
            options = {
                "parameters": SEED,
                "request_compression_algorithm": packed,
                "response_compression_algorithm": packed,
            }
            answer = client.infer(model, asked, model_version="1", request_id="a", **options)
            assert answer.get_response()["id"] == "a" and answer.as_numpy("chords").dtype == np.int64
            symbols = [text if isinstance(text, str) else text.decode() for text in answer.as_numpy("symbols")[0]]
            found[f"triton {is_binary} {packed}"] = answer.as_numpy("chords")[0].tolist()
            found.setdefault("symbols", symbols)
            assert found["symbols"] == symbols
            wanted = [triton.InferRequestedOutput("chords", binary_data=is_binary)]
            answer = client.infer(model, asked, outputs=wanted, parameters=SEED)
            assert answer.as_numpy("symbols") is None
            found[f"triton {is_binary} {packed} wanted"] = answer.as_numpy("chords")[0].tolist()
        for identity in (7, "seven"):
            played = []
            for frame in range(len(melody)):
                asked = triton_input("note", melody[frame - 1 : frame] if frame else [], is_binary)
                ends = {"sequence_start": frame == 0, "sequence_end": frame == len(melody) - 1}
                answer = client.infer(model, asked, sequence_id=identity, **ends, parameters=SEED)
                played += answer.as_numpy("chord")[0].tolist()
            found[f"triton {is_binary} {identity}"] = played
    try:
        client.infer(model, triton_input("note", [3], True), sequence_id=8)
    except InferenceServerException as error:
        assert "begin it with sequence_start" in error.message()
    else:
        raise AssertionError("a session that was never begun was answered")
    client.close()
    return found


def kserve_input(name, notes, is_binary):
    notes = np.array([notes], np.int64)
    found = kserve.InferInput(name, list(notes.shape), "INT64")
    found.set_data_from_numpy(notes, binary_data=is_binary)
    return [found]


async def by_kserve(url, model, melody):
    found = {}
    async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
        url = f"http://{url}"
        assert await client.is_server_live(url) and await client.is_server_ready(url)
        assert await client.is_model_ready(url, model)
        for is_binary in (True, False):
            for wish in ({}, {"binary_data_output": True}):
                asked = kserve.InferRequest(model, kserve_input("melody", melody, is_binary), parameters=SEED | wish)
                answer = await client.infer(url, asked, model_name=model)
                chords = answer.get_output_by_name("chords").as_numpy()
                assert chords.dtype == np.int64
                found[f"kserve {is_binary} {bool(wish)}"] = chords[0].tolist()
            played = []
            for frame in range(len(melody)):
                ends = {"sequence_start": frame == 0, "sequence_end": frame == len(melody) - 1}
                notes = melody[frame - 1 : frame] if frame else []
                asked = kserve_input("note", notes, is_binary)
                asked = kserve.InferRequest(model, asked, parameters=SEED | ends | {"sequence_id": "k"})
                answer = await client.infer(url, asked, model_name=model)
                played += answer.get_output_by_name("chord").as_numpy()[0].tolist()
            found[f"kserve {is_binary} session"] = played
    return found


def main():
    url, model, melody = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps(by_triton(url, model, melody) | asyncio.run(by_kserve(url, model, melody))))


if __name__ == "__main__":
    main()
