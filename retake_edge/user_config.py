"""What a user sets once: the model that is used where none is named.

    model = "qwen2.5-vl-3b"     # a name, a GGUF file, or user/repo[:quant] of the hub

in config.toml below the user's configuration folder, or in the file that `RETAKE_CONFIG` names.
`RETAKE_MODEL` goes before it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from retake_edge.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODEL_VARIABLE, CONFIG_VARIABLE = "RETAKE_MODEL", "RETAKE_CONFIG"
_KEYS = ("model",)


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
    if named := os.environ.get(MODEL_VARIABLE, "").strip():
        return named, MODEL_VARIABLE
    path = config_file()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read {path} ({error}); mend or remove it.") from None
    unknown = sorted(set(values) - set(_KEYS))
    if unknown:
        raise ConfigError(
            f"{path} sets {unknown[0]!r}, which is no setting; there is {', '.join(_KEYS)}."
        )
    model = values.get("model")
    if model is None:
        return None
    if not isinstance(model, str) or not model.strip():
        raise ConfigError(f'The model in {path} is {model!r}; write it like model = "NAME".')
    return model.strip(), str(path)
