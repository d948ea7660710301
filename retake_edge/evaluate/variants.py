"""Settings that are compared, written as "policy=spread,keep-ratio=0.25; policy=none"."""

from __future__ import annotations

from typing import Any

from retake_edge.config import RetakeConfig, all_settings, path_of, with_values
from retake_edge.errors import ConfigError

_OLD_NAMES = {"keep": "keep-ratio"}
"""Of the version before: still read."""


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
        path = path_of(_OLD_NAMES.get(name, name))
        if not equals or path is None:
            raise ConfigError(f"--compare has {word!r}, which is no setting and its value.")
        section, _, field = path.partition(".")
        values.setdefault(section, {})[field] = all_settings()[path].parsed(value)
    return with_values(config, **values)
