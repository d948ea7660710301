"""Checks made of the facts that `doctor.diagnose` gathers: is it fine, and what to do if not.

No check looks at the machine but for the cache folder's: each can be tried with any facts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retake_edge.doctor.vulkan_driver import MESA_FIXED, faulty_mesa
from retake_edge.errors import NativeError, VideoError

if TYPE_CHECKING:
    from retake_edge.catalog.catalog import ModelEntry
    from retake_edge.doctor.self_test import SelfTest
    from retake_edge.llama.devices import Device

OK, WARNING, ERROR = "ok", "warning", "error"
LOW_MEMORY_BYTES = 2 << 30
LOW_GPU_MEMORY_BYTES = 1 << 30
LOW_DISK_BYTES = 1 << 30
NECESSARY_CODEC = "H.264"


@dataclass(frozen=True)
class Check:
    """The state of one part.

    `status`: ok, warning (works, but not as well as it could) or error (questions cannot be
    answered; `exit_code` says of what kind). `advice`: what to do about it. `facts`: plain values.
    `more`: lines to be shown below.
    """

    name: str
    status: str
    text: str
    advice: str = ""
    exit_code: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[str, ...] = ()


def cpu_check(machine: Set[str] | None, library: Set[str]) -> Check:
    """Compare the instructions of the processor (None: not known) with those of the library."""
    facts = {
        "machine": sorted(machine) if machine is not None else None,
        "library": sorted(library),
    }
    if machine is not None and library - machine:
        return Check(
            "cpu",
            ERROR,
            f"The library uses {_list(library - machine)}, which this processor lacks; it would "
            "be ended in the middle of its work.",
            "build it on this machine, or with CMAKE_ARGS=-DGGML_NATIVE=OFF for several ones",
            NativeError.exit_code,
            facts,
        )
    unused = (machine or set()) - library - {"AVX512"}
    if unused:
        return Check(
            "cpu",
            WARNING,
            f"The library was built without {_list(unused)}, which this processor has: it is "
            "slower than it could be.",
            "build it on this machine, without -DGGML_NATIVE=OFF",
            facts=facts,
        )
    return Check("cpu", OK, _list(library) or "no special instructions", facts=facts)


def backends_check(
    found: Sequence[Device],
    backends: Sequence[str],
    cards: Set[str],
    drivers: Sequence[str] = (),
) -> Check:
    """Compare the machine's graphics cards with what the library can use and does find.

    `drivers`: Vulkan's, as they name themselves.
    """
    facts = {
        "backends": list(backends),
        "devices": [vars(device) for device in found],
        "cards": sorted(cards),
        "vulkan_drivers": list(drivers),
    }
    gpus = [device for device in found if device.is_gpu]
    built = ", ".join(backends)
    if not gpus:
        problem, advice = _unused_card(cards, set(backends))
        if problem:
            return Check("backends", WARNING, f"{built}; {problem}", advice, facts=facts)
        return Check("backends", OK, f"{built}; no GPU found", facts=facts)
    memory = [f"{size(d.free_bytes)} of {size(d.total_bytes)} free" for d in gpus]
    named = [f"{d.name} ({d.description}, {m})" for d, m in zip(gpus, memory, strict=True)]
    text = f"{built}; {', '.join(named)}"
    mesa = faulty_mesa(drivers) if any(d.backend == "Vulkan" for d in gpus) else ""
    if mesa:
        text += f"; {mesa} frees memory twice under ggml's Vulkan code, which ends the process"
        advice = f"take Mesa {MESA_FIXED} or later, or keep to the CPU with -ngl 0"
        return Check("backends", WARNING, text, advice, facts=facts)
    if any(d.total_bytes and d.free_bytes < LOW_GPU_MEMORY_BYTES for d in gpus):
        advice = "end other programs that use the GPU, or keep layers off it with -ngl"
        text += "; hardly any memory is left"
        return Check("backends", WARNING, text, advice, facts=facts)
    return Check("backends", OK, text, facts=facts)


def _unused_card(cards: Set[str], backends: Set[str]) -> tuple[str, str]:
    """Return why the library finds no GPU though there is one, and advice; ('', '') without one.

    Of several cards the first by name that it was built for counts, else the first.
    """
    from retake_edge.llama.devices import BACKENDS_OF, BUILD_OPTION_OF

    for card in sorted(cards):
        if backends & set(BACKENDS_OF[card]):
            problem = f"the {card} GPU is not found by the library, which runs on the CPU"
            return problem, "check the GPU's driver, and that this user may use it"
    for card in sorted(cards):
        problem = f"there is a GPU ({card}), but the library was built without code for it"
        return problem, f"CMAKE_ARGS={BUILD_OPTION_OF[card]} before 'make' or 'pip install .'"
    return "", ""


def memory_check(available: int | None, total: int | None) -> Check:
    """Judge the bytes of memory that are left (None: not known)."""
    facts = {"available_bytes": available, "total_bytes": total}
    if available is None:
        return Check("memory", OK, "what is left is not told here", facts=facts)
    text = f"{size(available)}{f' of {size(total)}' if total else ''} available"
    if available >= LOW_MEMORY_BYTES:
        return Check("memory", OK, text, facts=facts)
    advice = "end other programs, or take a smaller model, -c, --kv-budget or -ctk q8_0 -ctv q8_0"
    return Check("memory", WARNING, f"Hardly any memory is left: {text}", advice, facts=facts)


def cache_check(folder: Path, n_sessions: int, n_damaged: int, n_bytes: int) -> Check:
    """Judge the cache folder: can sessions be saved, are they whole, is there room."""
    home = _nearest_folder(folder)
    facts = {"folder": str(folder), "n_sessions": n_sessions, "n_bytes": n_bytes}
    try:
        with tempfile.TemporaryFile(dir=home):
            free = shutil.disk_usage(home).free
    except OSError as error:
        return Check(
            "cache",
            WARNING,
            f"Nothing can be written in {home} ({error.strerror}); every question reads its video "
            "anew.",
            "make the folder writable, or choose another with --cache-dir or RETAKE_CACHE_DIR",
            facts=facts,
        )
    facts["free_bytes"] = free
    text = f"{folder}: {n_sessions} sessions, {size(n_bytes)}, {size(free)} free"
    if n_damaged:
        advice = (
            "remove them: 'retake-edge sessions list' shows them, 'sessions rm KEY' removes one"
        )
        return Check("cache", WARNING, f"{text}; {n_damaged} are damaged", advice, facts=facts)
    if free < LOW_DISK_BYTES:
        advice = "make room, for example with 'retake-edge sessions prune --max-bytes 1G'"
        return Check("cache", WARNING, f"The disk is almost full: {text}", advice, facts=facts)
    return Check("cache", OK, text, facts=facts)


def decoders_check(reasons: Mapping[str, str]) -> Check:
    """Judge which codecs are read: each has a reason why not, '' if it is. H.264 is necessary."""
    facts = {"reasons": dict(reasons)}
    read = ", ".join(codec for codec, reason in reasons.items() if not reason)
    unread = ", ".join(codec for codec, reason in reasons.items() if reason)
    if not unread:
        return Check("decoders", OK, read, facts=facts)
    if reasons[NECESSARY_CODEC]:
        text = f"{NECESSARY_CODEC} videos cannot be read: {reasons[NECESSARY_CODEC]}"
        advice = "install av again: pip install --force-reinstall av"
        return Check("decoders", ERROR, text, advice, VideoError.exit_code, facts)
    advice = "convert such videos: ffmpeg -i IN -c:v libx264 OUT.mp4"
    return Check("decoders", WARNING, f"{read}, but not {unread}", advice, facts=facts)


def self_test_check(result: SelfTest, gpus: Set[str]) -> Check:
    """Judge the questions about the bundled video, and what they were answered on.

    `gpus`: the names of the GPUs that the library finds.
    """
    facts = vars(result)
    if result.problem:
        advice = "build the libraries again; 'retake-edge -v ask' with the bundled video shows more"
        return Check("self-test", ERROR, result.problem, advice, result.exit_code, facts)
    layers = ", ".join(sorted(result.layer_devices)) or "unknown"
    text = (
        f"{len(result.answers)} questions answered rightly in {result.seconds:.1f} s; vision on "
        f"{result.vision_device or 'unknown'}, language model on {layers}"
    )
    if gpus and not {result.vision_device, *result.layer_devices} <= gpus:
        advice = "'retake-edge -v ask' with the bundled video shows why; rebuild for this GPU"
        return Check("self-test", WARNING, f"{text}, though there is a GPU", advice, facts=facts)
    if result.has_slow_vision:
        advice = "'retake-edge -v ask' with the bundled video names the operations"
        text += "; parts of vision fall back to the CPU, because the GPU lacks operations"
        return Check("self-test", WARNING, text, advice, facts=facts)
    return Check("self-test", OK, text, facts=facts)


def choice_check(entries: Sequence[ModelEntry], table: Sequence[str], next_step: str) -> Check:
    """Judge whether a model for real videos is here, and can be used.

    `table`: all models with what they take; `next_step`: what to type.
    """
    facts = {"models": [asdict(entry) for entry in entries]}
    here = [entry for entry in entries if entry.is_downloaded and entry.source != "bundled"]
    usable = [entry.name for entry in here if entry.fits]
    shown = tuple(table)
    if usable:
        text = f"for real videos: {', '.join(usable)}"
        return Check("choice", OK, text, facts=facts, more=shown)
    if here:
        names = ", ".join(entry.name for entry in here)
        text = f"what is downloaded ({names}) does not fit into the memory that is free"
    else:
        text = "no model for real videos is here; the bundled one understands demo scenes only"
    return Check("choice", WARNING, text, next_step, facts=facts, more=shown)


def _nearest_folder(folder: Path) -> Path:
    """Return the folder, or the one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _list(names: Set[str]) -> str:
    return ", ".join(sorted(names))


def size(n_bytes: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
