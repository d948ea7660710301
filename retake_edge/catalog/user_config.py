"""The user's own defaults: the model where none is named, and the room for videos.

    model = "qwen2.5-vl-3b"     # a name, a GGUF file, or user/repo[:quant] of the hub
    max_size = "20G"            # of all saved videos; those not used for longest go first

in config.toml below the user's configuration folder, or in the file that `RETAKE_CONFIG` names.
`RETAKE_MODEL` and `RETAKE_MAX_SIZE` go before it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from retake_edge.errors import ConfigError
from retake_edge.formats import parse_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODEL_VARIABLE, CONFIG_VARIABLE = "RETAKE_MODEL", "RETAKE_CONFIG"
MAX_SIZE_VARIABLE = "RETAKE_MAX_SIZE"
_EXAMPLES = {"model": 'model = "NAME"', "max_size": 'max_size = "20G"'}


def config_file() -> Path:
    """Return where the file lies, whether or not it is there."""
    override = os.environ.get(CONFIG_VARIABLE)
    if override:
        return Path(override).expanduser()
    import platformdirs

    return platformdirs.user_config_path("retake-edge", appauthor=False) / "config.toml"


def default_model() -> tuple[str, str] | None:
    """Return the model that the user chose for always, and where it says so; None: none chosen.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    return _chosen("model", MODEL_VARIABLE)


def most_saved_bytes() -> int | None:
    """Return how much all saved videos may take on the disk; None: as much as they take.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    if (chosen := _chosen("max_size", MAX_SIZE_VARIABLE)) is None:
        return None
    text, where = chosen
    try:
        return parse_bytes(text)
    except ConfigError as error:
        raise ConfigError(f"The max_size of {where}: {error}") from None


def _chosen(key: str, variable: str) -> tuple[str, str] | None:
    """A setting, and where it stands: the variable's name, or the file's."""
    if named := os.environ.get(variable, "").strip():
        return named, variable
    path = config_file()
    value = _values(path).get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"The {key} in {path} is {value!r}; write it like {_EXAMPLES[key]}.")
    return value.strip(), str(path)


def _values(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read {path} ({error}); mend or remove it.") from None
    unknown = sorted(set(values) - set(_EXAMPLES))
    if unknown:
        raise ConfigError(
            f"{path} sets {unknown[0]!r}, which is no setting; there are {', '.join(_EXAMPLES)}."
        )
    return values
