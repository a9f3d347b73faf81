"""Requests as clients make them."""

import json

import numpy as np

MODEL = "bundle"
INFER = f"/v2/models/{MODEL}/infer"


def tensor(name, values, datatype="INT64", **more):
    values = np.atleast_2d(values)
    return {"name": name, "shape": list(values.shape), "datatype": datatype, **more}


def frame(identity, notes, **parameters):
    data = tensor("note", np.reshape(notes, (1, -1))) | {"data": [int(note) for note in notes]}
    return {"inputs": [data], "parameters": {"sequence_id": identity, **parameters}}


def binary(name, values, dtype="<i8", **request):
    """Headers and body of a request whose tensor follows its JSON as bytes."""
    content = np.atleast_2d(values).astype(dtype).tobytes()
    datatype = {"<i8": "INT64", "<i4": "INT32"}[dtype]
    asked = tensor(name, values, datatype, parameters={"binary_data_size": len(content)})
    head = json.dumps({"inputs": [asked]} | request).encode()
    return {"headers": {"Inference-Header-Content-Length": str(len(head))}, "content": head + content}


def tensors(answer):
    """The outputs of an answer as arrays, read as the binary tensor extension says."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get("Inference-Header-Content-Length", len(answer.content)))
    rest, found = answer.content[length:], {}
    for output in json.loads(answer.content[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"])
        else:
            part, rest = rest[:size], rest[size:]
            values = np.frombuffer(part, "<i8") if output["datatype"] == "INT64" else np.array(texts(part))
        found[output["name"]] = values.reshape(output["shape"])
    assert not rest
    return found


def texts(content):
    found = []
    while content:
        size = int.from_bytes(content[:4], "little")
        found.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return found
