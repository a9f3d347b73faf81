"""Settings in general: limits at fields, strict reading and overriding, JSON both ways, a hash.

It works on any tree of frozen dataclasses; `config` has the ones of this project.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from gapt_jax.errors import UserError

LARGEST_FLOAT = 3.4e38  # of float32, in which everything is computed


class ConfigError(UserError):
    """A configuration that cannot be used; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a number may be: ``Annotated[float, Limits(above=0, most=1)]``."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    multiple_of: int | None = None

    def broken(self, value: float) -> str:
        """The first limit that `value` breaks, in words that follow "must be"; empty = none."""
        if self.least is not None and value < self.least:
            return f"at least {self.least}"
        if self.above is not None and value <= self.above:
            return f"more than {self.above}"
        if self.most is not None and value > self.most:
            return f"at most {self.most}"
        if self.below is not None and value >= self.below:
            return f"less than {self.below}"
        return f"a multiple of {self.multiple_of}" if self.multiple_of and value % self.multiple_of else ""


@dataclasses.dataclass(frozen=True)
class Matching:
    """What a text may be: all of it matches `pattern`, which `words` put so that they follow "must be"."""

    pattern: str
    words: str

    def broken(self, value: str) -> str:
        return "" if re.fullmatch(self.pattern, value) else self.words


def hints_of(cls: Any) -> dict[str, Any]:
    """The types of a dataclass's fields with their limits."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def leaves(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, type with limits) of every setting below a dataclass."""
    for key, hint in hints_of(cls).items():
        path = _join(prefix, key)
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, path)
        else:
            yield path, hint


def to_dict(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def to_json(config: Any) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def config_hash(*parts: Any) -> str:
    """Twelve hex digits that change with any field of any part (dataclasses or JSON values)."""
    plain = [dataclasses.asdict(p) if dataclasses.is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def from_dict(cls: type, data: Any, path: str = "") -> Any:
    """Builds a config from plain data. Unknown keys, and values of the wrong type or beyond a limit, are errors that
    name the field; those in `RETIRED` of the class are passed over. A class may choose the subclass to build: `of`."""
    if not isinstance(data, dict):
        raise ConfigError(f"{path or 'config'} must be a table of settings, not {data!r}")
    cls = cls.of(data) if hasattr(cls, "of") else cls
    hints = hints_of(cls)
    data = {key: value for key, value in data.items() if key not in getattr(cls, "RETIRED", ())}
    for key in data:
        if key not in hints:
            raise ConfigError(f"unknown setting '{_join(path, key)}'{did_you_mean(key, hints)}")
    return cls(**{key: _convert(hints[key], value, _join(path, key)) for key, value in data.items()})


def assigned(config: Any, assignments: Iterable[str]) -> Any:
    """`config` after ``path.to.field=value`` assignments; values are JSON, bare words are text.

    A table changes the settings that it names and no others.
    """
    data = dataclasses.asdict(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"'{assignment}' is not of the form path=value")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # a ValueError too: more digits than Python reads as a number
            value = text
        _assign(type(config), data, path.strip(), value)
    return from_dict(type(config), data)


def _assign(cls: type, data: dict[str, Any], path: str, value: Any) -> None:
    node, keys, current = data, path.split("."), cls
    for depth, key in enumerate(keys):
        hints = hints_of(current) if dataclasses.is_dataclass(current) else {}
        if key not in hints:
            raise ConfigError(f"unknown setting '{path}'{did_you_mean(path, (name for name, _ in leaves(cls)))}")
        current = hints[key]
        if depth < len(keys) - 1:
            node = node[key]
    if dataclasses.is_dataclass(current) and isinstance(value, dict):
        for key, inner in value.items():
            _assign(cls, data, f"{path}.{key}", inner)
    else:
        node[keys[-1]] = value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        plain = _convert(args[0], value, path)
        for limit in args[1:]:
            if words := limit.broken(plain):
                raise ConfigError(f"{path} must be {words}, not {plain!r}")
        return plain
    if origin is Literal:
        if _convert(str, value, path) not in args:
            raise ConfigError(f"{path} must be one of {', '.join(args)}, not '{value}'")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} must be a list, not {value!r}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item, path) for item in value)
        if len(value) != len(args):
            raise ConfigError(f"{path} must have {len(args)} entries, not {value!r}")
        return tuple(_convert(a, item, path) for a, item in zip(args, value, strict=True))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and is_number:
        return _finite(value, path)
    if hint is str and is_number:
        return str(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{path} must be {'a number' if hint is float else hint.__name__}, not {value!r}")
    return value


def _finite(value: float, path: str) -> float:
    if not -LARGEST_FLOAT <= value <= LARGEST_FLOAT:  # NaN compares false
        raise ConfigError(f"{path} must be a finite number in float32")
    return float(value)
