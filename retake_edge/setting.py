"""One field of the configuration: its flag, its help and the values it takes, each written once.

A field carries its `Setting` as metadata. Its checks, the command line's options, the pages of
`docs/` and the words of `eval --compare` are made from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeVar

from retake_edge.errors import ConfigError
from retake_edge.formats import parse_time

T = TypeVar("T")
_KEY = "setting"
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_TYPES: dict[type, Any] = {int: Integral, float: Real, bool: bool, str: str}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless `is_open`, which leaves `low` out."""

    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False

    def __contains__(self, value: float) -> bool:
        """Return whether a number is in it; infinities never are."""
        above = value > self.low if self.is_open else value >= self.low
        return above and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        """Return the range in words."""
        if self.low == -math.inf:
            return "finite"
        if self.high == math.inf:
            return f"{'above' if self.is_open else 'at least'} {self.low:.10g}"
        if self.is_open:
            return f"above {self.low:.10g} and at most {self.high:.10g}"
        return f"from {self.low:.10g} to {self.high:.10g}"


@dataclass(frozen=True)
class Setting:
    """A field as people see it.

    `help`: what it is, in a sentence. `flags`: on the command line, first the one that messages
    name; where there are none, `no_flag` is the reason. `unset`: what None or '' stands for.
    `metavar`: the value in a help line; `env`: llama.cpp's variable for it, without LLAMA_ARG_;
    `llama_defaults`: how llama.cpp writes that nothing is asked for, which means our default here.
    `choices` or `range`: the values it takes. `is_time`: seconds, also written 1:30 or 1:02:00.
    `is_everyday`: the short help shows it. `kind` and `is_optional` come from the annotation.
    """

    help: str
    flags: tuple[str, ...] = ()
    no_flag: str = ""
    unset: str = ""
    metavar: str = "N"
    env: str = ""
    llama_defaults: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    range: Range | None = None
    is_time: bool = False
    is_everyday: bool = False
    name: str = ""
    default: Any = None
    kind: type = str
    is_optional: bool = False

    @property
    def flag(self) -> str:
        """The flag that messages name, or the field's own name."""
        return self.flags[0] if self.flags else self.name

    @property
    def help_line(self) -> str:
        """The help with the choices, and with what no value stands for."""
        text = f"{self.help.rstrip('.')}: {', '.join(self.choices)}." if self.choices else self.help
        return f"{text}  [default: {self.unset}]" if self.unset else text

    def written(self, value: Any) -> str:
        """Return the flag with a value, as on the command line."""
        if self.kind is bool:
            return self.flag if value else f"--no-{self.flag.lstrip('-')}"
        return f"{self.flag} {value:g}" if self.kind is float else f"{self.flag} {value}"

    def check(self, value: Any) -> None:
        """Check a value.

        Raises:
            ConfigError: it is of another kind, or not among the values that the field takes.
        """
        if value is None and self.is_optional:
            return
        is_kind = isinstance(value, _TYPES[self.kind])
        is_kind = is_kind and (self.kind is bool or not isinstance(value, bool))
        require(is_kind, self.flag, value, _NOUNS[self.kind])
        if self.choices:
            require(value in self.choices, self.flag, value, f"one of {', '.join(self.choices)}")
        elif self.range is not None:
            require(value in self.range, self.flag, value, str(self.range))

    def parsed(self, text: str) -> Any:
        """Return the value that a text stands for.

        Raises:
            ConfigError: it is no number where the field is one.
        """
        if text in self.llama_defaults:
            return self.default
        if self.is_time:
            return parse_time(text, self.flag)
        if self.kind is bool:
            return text.lower() in ("1", "true", "yes", "on")
        try:
            return self.kind(text)
        except ValueError:
            must = _NOUNS[self.kind]
            raise ConfigError(f"{self.flag} is {text!r}, but it must be {must}.") from None


def setting(default: Any, *flags: str, help: str, **more: Any) -> Any:
    """Return a dataclass field with a default and its `Setting`."""
    return field(default=default, metadata={_KEY: Setting(help, flags, **more)})


def settings_of(section: Any) -> Mapping[str, Setting]:
    """Return the settings of a section (its class or an object) by the names of its fields."""
    return _settings(section if isinstance(section, type) else type(section))


@cache
def _settings(section: Any) -> Mapping[str, Setting]:
    return {one.name: one for one in _filled(section)}


def _filled(section: Any) -> Iterator[Setting]:
    kinds = {kind.__name__: kind for kind in _NOUNS}
    for one in fields(section):
        kind, _, rest = str(one.type).partition(" | ")
        found: Setting = one.metadata[_KEY]
        yield replace(
            found, name=one.name, default=one.default, kind=kinds[kind], is_optional=bool(rest)
        )


def described(section: type[T]) -> type[T]:
    """Put the help of a section's fields into its docstring, a line each."""
    lines = [f"    `{name}`: {one.help_line}" for name, one in settings_of(section).items()]
    section.__doc__ = "\n".join([(section.__doc__ or "").rstrip(), "", *lines])
    return section


def require(ok: bool, name: str, value: object, must: str) -> None:
    """Refuse a value that must be otherwise.

    Raises:
        ConfigError: `ok` is false.
    """
    if not ok:
        raise ConfigError(f"{name} is {value!r}, but it must be {must}.")
