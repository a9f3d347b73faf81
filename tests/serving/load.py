"""Load test: ``python -m tests.serving.load URL MODEL --sessions 64 --seconds 60 [--bpm 120]``.

Every session plays at the tempo, a request a frame, and its chords must be those that the same melody gets as a whole
song with the same seed. Prints one JSON object.
"""

import argparse
import asyncio
import json
import time

import httpx
import numpy as np

from gapt_jax.export.bundle import _melodies

SEEDS = 8


async def _play(client: httpx.AsyncClient, infer: str, number: int, expected, until: float, frame_s: float, found):
    rounds = 0
    while time.monotonic() < until:
        seed = (number + rounds) % SEEDS
        melody, chords = expected[seed]
        played, start = [], time.monotonic()
        for frame in range(len(melody)):
            await asyncio.sleep(max(0.0, start + frame * frame_s - time.monotonic()))
            notes = melody[frame - 1 : frame] if frame else []
            parameters = {"sequence_id": f"{number}-{rounds}", "seed": seed}
            parameters |= {"sequence_start": frame == 0, "sequence_end": frame == len(melody) - 1}
            data = {"name": "note", "shape": [1, len(notes)], "datatype": "INT32", "data": list(notes)}
            asked = time.monotonic()
            answer = await client.post(infer, json={"inputs": [data], "parameters": parameters})
            found["seconds"].append(time.monotonic() - asked)
            if answer.status_code != 200:
                found["refused"] += 1
                break
            played += answer.json()["outputs"][0]["data"]
        found["sessions"] += 1
        found["wrong"] += played != chords[: len(played)]
        rounds += 1


async def run(url: str, model: str, sessions: int, seconds: float, bpm: float, frames: int) -> dict:
    """Lost and crossed sessions, and how long a frame took."""
    infer = f"/v2/models/{model}/infer"
    melodies = np.resize(_melodies(frames), (SEEDS, frames)).tolist()
    limits = httpx.Limits(max_connections=sessions)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        expected = []
        for seed, melody in enumerate(melodies):
            data = {"name": "melody", "shape": [1, frames], "datatype": "INT32", "data": melody}
            answer = await client.post(infer, json={"inputs": [data], "parameters": {"seed": seed}})
            expected.append((melody, answer.json()["outputs"][0]["data"]))
        found = {"sessions": 0, "wrong": 0, "refused": 0, "seconds": []}
        until = time.monotonic() + seconds
        plays = [_play(client, infer, n, expected, until, 15 / bpm, found) for n in range(sessions)]
        await asyncio.gather(*plays)
    times = 1000 * np.array(found.pop("seconds"))
    quantiles = dict(zip(("p50_ms", "p95_ms", "p99_ms"), np.percentile(times, (50, 95, 99)).round(2), strict=True))
    return found | {"requests": len(times)} | quantiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--bpm", type=float, default=120)
    args = parser.parse_args()
    frames = httpx.get(f"{args.url}/v2/models/{args.model}").json()["parameters"]["max_frames"]
    print(json.dumps(asyncio.run(run(args.url, args.model, args.sessions, args.seconds, args.bpm, frames))))


if __name__ == "__main__":
    main()
