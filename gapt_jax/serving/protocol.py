"""Requests and answers of the Open Inference Protocol v2 as bytes: JSON, and tensors as bytes behind it (the binary
tensor extension). Every fault of a request is a `Refusal`: a status and a sentence."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gapt_jax.runtime.web import MAX_BODY
from gapt_jax.serving.player import Sampling, is_note

HEADER_LENGTH = "Inference-Header-Content-Length"  # bytes of JSON, where tensors follow as bytes
_DTYPES: dict[str, np.dtype] = {"INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}  # INT64 is the one declared
_Identity = Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=1, lt=2**64)]


class Refusal(Exception):
    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _InputParameters(_Part):
    binary_data_size: Annotated[int, Field(ge=0, le=MAX_BODY)] | None = None
    shared_memory_region: Any = None


class _Input(_Part):
    name: str = Field(max_length=64)
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    datatype: str = Field(max_length=16)
    data: Annotated[list[Any], Field(max_length=MAX_BODY)] | None = None
    parameters: _InputParameters | None = None


class _OutputParameters(_Part):
    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class _Output(_Part):
    name: str = Field(max_length=64)
    parameters: _OutputParameters | None = None


class Parameters(_Part):
    sequence_id: _Identity | None = None
    sequence_start: bool = False
    sequence_end: bool = False
    binary_data_output: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    temperature: Annotated[float, Field(ge=0, le=10, strict=False)] = 1.0
    masked: bool = True

    def sampling(self) -> Sampling:
        return Sampling(self.seed, self.temperature, self.masked)


class _Infer(_Part):
    id: Annotated[str, Field(max_length=128)] | None = None
    parameters: Parameters | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[_Output], Field(max_length=16)] | None = None


class Request(NamedTuple):
    """What is asked: `tokens` [B, T] int32 of the input `name`, and the wanted outputs, each as bytes or not."""

    identity: str | None
    parameters: Parameters
    name: str
    tokens: np.ndarray
    wanted: dict[str, bool] | None  # None: all of them

    def check_outputs(self, names: Sequence[str]) -> None:
        """Refuses a wish for an output that is not of `names`."""
        for name in self.wanted or ():
            if name not in names:
                raise Refusal(400, f"there is no output {name!r} here: there are {', '.join(names)}")


class Output(NamedTuple):
    """A tensor of an answer: token ids as int64, or texts."""

    name: str
    values: np.ndarray

    @property
    def datatype(self) -> str:
        return "BYTES" if self.values.dtype == object else "INT64"

    def to_bytes(self) -> bytes:
        """Row-major, little-endian; each text after its length, a uint32."""
        if self.datatype == "INT64":
            return self.values.astype("<i8").tobytes()
        texts = [text.encode() for text in self.values.reshape(-1)]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def decompressed(body: bytes, encodings: Sequence[str]) -> bytes:
    """The body of a request with these Content-Encoding headers; what would be longer than MAX_BODY is refused."""
    encoding = ",".join(encodings).strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refusal(415, "a body may be compressed by gzip or by deflate, and not twice")
    reader = zlib.decompressobj(wbits=31 if encoding == "gzip" else 15)
    try:
        found = reader.decompress(body, MAX_BODY + 1)
    except zlib.error:
        raise Refusal(400, f"the body is not compressed by {encoding}, as its Content-Encoding says") from None
    if len(found) > MAX_BODY:
        raise Refusal(413, f"a request may have {MAX_BODY} bytes when it is decompressed")
    if not reader.eof or reader.unused_data:
        raise Refusal(400, f"the body is not one whole stream of {encoding}")
    return found


def split(body: bytes, lengths: Sequence[str]) -> tuple[Any, bytes]:
    """The JSON of a body and the bytes behind it; `lengths` are the values of the header HEADER_LENGTH."""
    length = len(body)
    if lengths:
        text = lengths[0]
        if len(lengths) > 1 or not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) > len(body):
            raise Refusal(400, f"{HEADER_LENGTH} must be the number of bytes of JSON at the beginning of the body")
        length = int(text)
    try:
        return json.loads(body[:length], parse_constant=_no_number), body[length:]
    except (ValueError, RecursionError):
        raise Refusal(400, "the request is no JSON") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def ended_session(raw: Any) -> str | None:
    """The session that a request ends, whatever else is wrong with it."""
    parameters = raw.get("parameters") if isinstance(raw, dict) else None
    if not isinstance(parameters, dict) or parameters.get("sequence_end") is not True:
        return None
    identity = parameters.get("sequence_id")
    return str(identity) if isinstance(identity, str | int) else None


def parsed(raw: Any, rest: bytes) -> Request:
    """The request that JSON and the bytes behind it make."""
    try:
        infer = _Infer.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Refusal(400, f"{place or 'the request'}: {first['msg']}") from None
    tensor, parameters = infer.inputs[0], infer.parameters or Parameters()
    size = tensor.parameters and tensor.parameters.binary_data_size
    if (size or 0) != len(rest):
        raise Refusal(400, f"the binary_data_size of input {tensor.name!r} is not the number of bytes behind the JSON")
    wanted: dict[str, bool] = {}
    for output in infer.outputs or ():
        options = output.parameters or _OutputParameters()
        if output.name in wanted or options.classification or options.shared_memory_region:
            raise Refusal(400, f"output {output.name!r} is asked for twice, as classes, or in shared memory")
        is_binary = options.binary_data
        wanted[output.name] = parameters.binary_data_output if is_binary is None else is_binary
    return Request(infer.id, parameters, tensor.name, _tokens(tensor, rest), wanted or None)


def _tokens(tensor: _Input, rest: bytes) -> np.ndarray:
    """The notes [B, T] int32 of an input."""
    shown = repr(tensor.name)
    if tensor.datatype not in _DTYPES:
        raise Refusal(400, f"input {shown} has the datatype {tensor.datatype!r}, not {' or '.join(_DTYPES)}")
    dtype, shape, is_binary = _DTYPES[tensor.datatype], tensor.shape, False
    if tensor.parameters:
        if tensor.parameters.shared_memory_region is not None:
            raise Refusal(400, f"input {shown} lies in shared memory, which is not read here: send its data")
        is_binary = tensor.parameters.binary_data_size is not None
    if is_binary == (tensor.data is not None):
        raise Refusal(400, f"input {shown} needs data, either in the JSON or as bytes behind it")
    misfit = Refusal(400, f"input {shown} does not hold whole numbers of the shape {_shown(shape)}")
    if not all(0 <= n <= MAX_BODY for n in shape):
        raise misfit
    values = _from_bytes(rest, dtype, misfit) if is_binary else _from_json(tensor.data, dtype, shape, misfit)
    if values.size != math.prod(shape):
        raise misfit
    tokens = values.reshape(shape)
    if not is_note(tokens).all():
        raise Refusal(400, f"input {shown} has a token that is no note: 3 is silence, 4 to 259 are notes")
    return tokens.astype(np.int32)


def _from_bytes(rest: bytes, dtype: np.dtype, misfit: Refusal) -> np.ndarray:
    if len(rest) % dtype.itemsize:
        raise misfit
    return np.frombuffer(rest, dtype)


def _from_json(data: Any, dtype: np.dtype, shape: list[int], misfit: Refusal) -> np.ndarray:
    """Flat data, or a list of rows as the shape says. Nothing but whole numbers reaches NumPy, which would make every
    text as long as the longest."""
    flat = data
    if data and all(isinstance(row, list) for row in data):
        if len(data) != shape[0] or any(len(row) != shape[1] for row in data):
            raise misfit
        flat = [number for row in data for number in row]
    if not all(type(number) is int and abs(number) < 2**31 for number in flat):
        raise misfit
    return np.array(flat, dtype)


def _shown(shape: list[int]) -> str:
    return f"[{', '.join(str(n) if abs(n) < 10**12 else '...' for n in shape)}]"


def answer(request: Request, model: str, outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON where tensors follow as bytes."""
    by_name = {output.name: output for output in outputs}
    wanted = request.wanted or dict.fromkeys(by_name, request.parameters.binary_data_output)
    entries: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for name, is_binary in wanted.items():
        output = by_name[name]
        entry: dict[str, Any] = {"name": name, "shape": list(output.values.shape), "datatype": output.datatype}
        if is_binary:
            behind.append(output.to_bytes())
            entry["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            entry["data"] = output.values.reshape(-1).tolist()
        entries.append(entry)
    found: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": entries}
    if request.identity is not None:
        found["id"] = request.identity
    head = json.dumps(found).encode()
    return head + b"".join(behind), len(head) if behind else None
