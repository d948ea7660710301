"""Other saved sessions of the same video: what differs, in plain words, and how to ask them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from retake_edge.formats import clock
from retake_edge.formats import spoken_seconds as seconds
from retake_edge.session.store.folder import SessionStore

KEY_LETTERS = 8
"""Letters of a key that are shown; they suffice to name it."""
_MOST_TOLD = 3


def notes_of_others(store: SessionStore, key: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence about each other session of the video, the last used one first."""
    others = [
        session
        for session in store.sessions()
        if session.key != key and session.facts.get("video") == facts["video"]
    ]
    # A session that was read for another question cannot be asked this one.
    others = [one for one in others if guide(one.facts) in ("", guide(facts))]
    usable = [session for session in others if session.facts.get("engine") == facts["engine"]]
    old = [session for session in others if session not in usable]
    if old and any(_is_same_reading(session.facts, facts) for session in old):
        yield (
            "note: this video was read with another version of retake-edge, whose saved state this "
            "one cannot use; it is read again"
        )
    for session in usable[:_MOST_TOLD]:
        words = ", ".join(differences(session.facts, facts)) or "made in another way"
        state = "saved" if session.is_complete else "begun"
        yield (
            f"note: this video is {state} with other settings, too: {words}; "
            f"to ask that one: retake-edge ask {session.key[:KEY_LETTERS]} QUESTION"
        )


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return what another session has, where ours has something else."""
    found = []
    if theirs["model"] != ours["model"]:
        found.append("another model")
    if part(theirs) != part(ours):
        found.append(f"{part(theirs)} (now {part(ours)})")
    if spacing(theirs) != spacing(ours):
        found.append(f"a frame every {spacing(theirs)} (now {spacing(ours)})")
    elif theirs["frames"].get("times_sha256") != ours["frames"].get("times_sha256"):
        found.append(
            f"--sampling {theirs['frames']['sampling']} (now {ours['frames']['sampling']})"
        )
    if size(theirs) != size(ours):
        found.append(f"frames of {size(theirs)} (now {size(ours)})")
    if theirs.get("still") != ours.get("still"):
        found.append("another threshold for what stands still")
    if kept(theirs) != kept(ours):
        found.append(f"{kept(theirs)} (now {kept(ours)})")
    if guide(theirs) != guide(ours):
        found.append(f"read for {shown_guide(theirs)}")
    elif theirs["kept"] != ours["kept"] and kept(theirs) == kept(ours):
        found.append("another choice of what is kept")
    if theirs["cells"] != ours["cells"]:
        found.append(f"stored as {_stored(theirs)} (now {_stored(ours)})")
    if theirs["use"]["opening"] != ours["use"]["opening"] and not found:
        found.append("another system prompt")
    return found


def part(facts: Mapping[str, Any]) -> str:
    """Return the part of the video that was read, as 0:10-1:30."""
    frames = facts["frames"]
    first_s, last_s = frames["times_s"]
    return f"{clock(first_s)}-{clock(round(last_s + step_seconds(facts), 3))}"


def spacing(facts: Mapping[str, Any]) -> str:
    """Return how far apart frames are, such as 0.5 s."""
    step_s = step_seconds(facts)
    return seconds(step_s) if step_s else "video"


def size(facts: Mapping[str, Any]) -> str:
    """Return how large frames are."""
    return f"{facts['frames']['width_px']}x{facts['frames']['height_px']}"


def kept(facts: Mapping[str, Any]) -> str:
    """Return how much is kept of the frames."""
    found = facts["kept"]
    if "n_steps" in found:
        return f"{found['n_steps']} frames kept"
    return f"{100 * found['keep_ratio']:.3g} % kept" if "keep_ratio" in found else "all kept"


def guide(facts: Mapping[str, Any]) -> str:
    """Return the one question that the video was read for; '': any."""
    return str(facts.get("kept", {}).get("guide", ""))


def shown_guide(facts: Mapping[str, Any]) -> str:
    """Return which question the video was read for, in words."""
    return repr(guide(facts)) if guide(facts) else "any question"


def step_seconds(facts: Mapping[str, Any]) -> float:
    """Return the seconds from one frame to the next; 0 for a single frame."""
    frames = facts["frames"]
    first_s, last_s = frames["times_s"]
    return float((last_s - first_s) / (frames["n"] - 1)) if frames["n"] > 1 else 0.0


def _stored(facts: Mapping[str, Any]) -> str:
    return "/".join(dict.fromkeys(facts["cells"]))


def _is_same_reading(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    names = ("model", "frames", "kept", "cells")
    return all(theirs.get(name) == ours[name] for name in names)
