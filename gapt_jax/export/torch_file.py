"""Tensors of a file that torch.save or safetensors wrote, without PyTorch.

A file of torch.save is a pickle, which may hold any program. Here only tensors and plain containers are read.
"""

from __future__ import annotations

import collections
import functools
import io
import itertools
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from gapt_jax.errors import UserError

State = dict[str, np.ndarray]  # tensors by name, as a torch module calls them

MAX_BYTES = 8 << 30
MAX_PICKLE = 64 << 20  # the pickle of a checkpoint names its tensors, and does not hold them
MAX_NAMES = 1 << 20
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_SAFETENSORS = {
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16},
    **{"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1")},
    **{"U8": np.dtype("u1"), "BOOL": np.dtype("?")},
}


def read_state_dict(path: Path) -> State:
    """The tensors of a `.safetensors` file or of a checkpoint that torch.save wrote, by name.

    Of a checkpoint that nests its weights, as Lightning does, those under "state_dict". bfloat16 becomes float32;
    other types stay. Runs no code of the file; what is damaged or holds more than weights is a `UserError`.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path} has {size} bytes, more than the {MAX_BYTES} that are read")
        if path.suffix == ".safetensors":
            found = _read_safetensors(path.read_bytes(), str(path))
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = _read_archive(archive, str(path))
        else:
            raise UserError(f"{path} is no zip archive of torch.save (1.6 or later), or cut off: copy it again")
    except (UserError, OSError) as error:
        raise error if isinstance(error, UserError) else UserError(f"{path} cannot be read ({error})") from None
    except Exception as error:  # whatever a parser meets in bytes that anyone may have written
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): copy it again") from None
    if not found:
        raise UserError(f"{path} holds no tensors")
    return {name: a.astype(np.float32) if a.dtype == BFLOAT16 else a for name, a in found.items()}


def _read_safetensors(content: bytes, source: str) -> State:
    found = {}
    for name, entry in safetensors.deserialize(content):
        if entry["dtype"] not in _SAFETENSORS:
            raise UserError(f"{source} holds {name!r} as {entry['dtype']}, which is not read: convert it to F32")
        found[name] = np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    return found


class _Storage(NamedTuple):
    """Numbers in a member of the archive, not read yet."""

    member: str
    dtype: np.dtype
    length: int


class _View(NamedTuple):
    """A tensor: a strided view of a storage, not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(collections.OrderedDict):
    """Takes the place of OrderedDict; drops the attributes that torch hangs on a state dict."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Known:
    """What a pickle may name: a function it may call, or a type of numbers. It cannot change either."""

    __slots__ = ("what",)

    def __init__(self, what: Any) -> None:
        self.what = what

    def __call__(self, *args: Any) -> Any:
        return self.what(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function is given a state")


def _view(storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _View:
    """torch._utils._rebuild_tensor_v2; refuses views that leave their storage or unpack to more."""
    numbers = (offset, *shape, *strides)
    whole = isinstance(storage, _Storage) and all(type(n) is int and n >= 0 for n in numbers)
    if not whole or len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("a tensor without a proper storage, shape or strides")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.length or (0 not in shape and last >= storage.length):
        raise ValueError("a tensor that leaves its storage")
    return _View(storage, offset, tuple(shape), tuple(strides))


class _WeightsOnly(pickle.Unpickler):
    """Reads tensors, plain containers, numbers and texts; any other class or function is a `UserError`."""

    def __init__(self, content: bytes, members: Mapping[str, int], root: str, source: str) -> None:
        super().__init__(io.BytesIO(content))
        self._members, self._root, self._source = members, root, source

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Known(_view)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _Known(lambda view, *_: view)
        if module == "torch" and name in _STORAGES:
            return _Known(_STORAGES[name])
        raise UserError(
            f"{self._source} holds code, not only weights: convert it to safetensors "
            f"(it asks for {f'{module}.{name}'[:80]!r})"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, known, key, _, length = pid
        dtype = known.what if isinstance(known, _Known) else None
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(length) is not int or type(key) is not str:
            raise ValueError("an unknown kind of storage")
        member = f"{self._root}data/{key}"
        if self._members.get(member) != length * dtype.itemsize:
            raise ValueError(f"its part {member!r} is missing or has another size")
        return _Storage(member, dtype, length)


def _read_archive(archive: zipfile.ZipFile, source: str) -> State:
    """The tensors of a zip archive of torch.save."""
    entries = archive.infolist()
    if len(entries) > MAX_NAMES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise UserError(f"{source} unpacks to more than the {MAX_BYTES} bytes that are read")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{source} is compressed, which torch.save never does: convert it to safetensors")
    members = {entry.filename: entry.file_size for entry in entries}
    roots = [name.removesuffix("data.pkl") for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) != 1 or len(members) != len(entries) or members[f"{roots[0]}data.pkl"] > MAX_PICKLE:
        raise UserError(f"{source} is a zip archive, but none that torch.save wrote")
    root = roots[0]
    order = members.get(f"{root}byteorder")
    if order is not None and (order > 6 or archive.read(f"{root}byteorder") != b"little"):
        raise UserError(f"{source} was written on a big-endian machine: convert it to safetensors there")
    held = _WeightsOnly(archive.read(f"{root}data.pkl"), members, root, source).load()
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]
    if not isinstance(held, dict):
        raise UserError(f"{source} holds no state dict: save the module's state_dict()")
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, _View):
            raise UserError(f"{source} holds {name!r}, which is no tensor: save the module's state_dict() alone")
    views: dict[str, _View] = held
    if sum(math.prod(v.shape) * v.storage.dtype.itemsize for v in views.values()) > MAX_BYTES:
        raise UserError(f"{source} unpacks to more than the {MAX_BYTES} bytes that are read")
    found: State = {}
    by_member = functools.partial(_member, views)
    for member, names in itertools.groupby(sorted(views, key=by_member), by_member):
        content = archive.read(member)  # once for all of its views
        found |= {name: _array(content, views[name]) for name in names}
    return found


def _member(views: Mapping[str, _View], name: str) -> str:
    return views[name].storage.member


def _array(content: bytes, view: _View) -> np.ndarray:
    storage = np.frombuffer(content, view.storage.dtype)
    steps = tuple(stride * storage.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, steps).copy()
