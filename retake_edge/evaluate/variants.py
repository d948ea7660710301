"""Settings that are compared, written as "policy=spread,keep-ratio=0.25; policy=none"."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_type_hints

from retake_edge.config import RetakeConfig
from retake_edge.errors import ConfigError

_OLD_NAMES = {"keep": "keep_ratio"}
"""Of the version before: still read."""
_SECTIONS = tuple(field.name for field in fields(RetakeConfig))


def variants(text: str, config: RetakeConfig) -> dict[str, RetakeConfig]:
    """Return the settings of every variant by its name; those not named are as in `config`.

    Raises:
        ConfigError: a setting is unknown, no number where one is needed, or out of range.
    """
    found: dict[str, RetakeConfig] = {}
    for part in (part.strip() for part in text.split(";")):
        if part:
            name = ",".join(word.strip() for word in part.split(","))
            found[name] = _changed(config, name)
    if len(found) < 2:
        raise ConfigError(
            f"--compare is {text!r}, but it must be two or more settings between semicolons, "
            'such as "policy=spread,keep-ratio=0.25; policy=none".'
        )
    return found


def _changed(config: RetakeConfig, text: str) -> RetakeConfig:
    values: dict[str, dict[str, Any]] = {}
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        name = _OLD_NAMES.get(name, name.replace("-", "_"))
        section = next((s for s in _SECTIONS if _has(config, s, name)), None)
        if not equals or section is None:
            raise ConfigError(f"--compare has {word!r}, which is no setting and its value.")
        values.setdefault(section, {})[name] = _parsed(getattr(config, section), name, value)
    for given in values.values():
        if "keep_ratio" in given:
            given.setdefault("kv_budget", None)
        elif "kv_budget" in given:
            given["keep_ratio"] = None
    changed = {s: replace(getattr(config, s), **values[s]) for s in values}
    return replace(config, **changed)


def _has(config: RetakeConfig, section: str, name: str) -> bool:
    return any(field.name == name for field in fields(getattr(config, section)))


def _parsed(section: Any, name: str, value: str) -> Any:
    hint = str(get_type_hints(type(section))[name])
    if "str" in hint:
        return value
    if "bool" in hint:
        return value.lower() in ("1", "true", "yes", "on")
    try:
        return float(value) if "float" in hint else int(value)
    except ValueError:
        raise ConfigError(f"--compare has {name}={value}, but it must be a number.") from None
