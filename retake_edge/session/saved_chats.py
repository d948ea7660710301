"""Conversations on disk: questions and answers about one session, to go on with later.

One JSON file a session, below the cache folder, readable by its owner alone. Only `/save` writes
one; the answers' cells are not kept, as decoding some text again costs little.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retake_edge.errors import ConfigError
from retake_edge.files import write_atomically

Turns = Sequence[tuple[str, str]]
"""(question, answer), in order."""


def chat_file(cache_dir: Path, key: str) -> Path:
    """Return where the conversation about a session lies."""
    return cache_dir / "chats" / f"{key}.json"


def save_turns(file: Path, turns: Turns) -> None:
    """Write a conversation in place of the one before.

    Raises:
        ConfigError: the file cannot be written.
    """
    said = [{"question": question, "answer": answer} for question, answer in turns]
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(file, json.dumps({"format": 1, "turns": said}, indent=1).encode())
    except OSError as error:
        raise ConfigError(
            f"The conversation cannot be saved as {file} ({error.strerror}); "
            "choose another --cache-dir."
        ) from None


def load_turns(file: Path) -> Turns:
    """Return a saved conversation.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8"))
        return [(str(turn["question"]), str(turn["answer"])) for turn in said["turns"]]
    except FileNotFoundError:
        raise ConfigError(
            "There is no saved conversation about this video with this model and these settings; "
            "/save within a chat makes one."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"The saved conversation {file} is damaged; remove it.") from None
