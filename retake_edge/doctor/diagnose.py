"""Is everything there that an answer needs? One check a part, each with what to do about it.

The facts are gathered here and judged in `doctor.checks`. Nothing is downloaded, and nothing
is left behind but what this machine's speed is.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from retake_edge.doctor.checks import (
    ERROR,
    OK,
    Check,
    backends_check,
    cache_check,
    choice_check,
    cpu_check,
    decoders_check,
    memory_check,
    self_test_check,
    size,
)
from retake_edge.errors import NativeError, RetakeError, VideoError
from retake_edge.version import __version__

# One clip a codec, each of 30 frames at 10 a second with a strip that is red left and blue right.
CLIPS = {"H.264": "h264.mp4", "HEVC": "hevc.mp4", "VP9": "vp9.webm", "AV1": "av1.mp4"}
_CLIP_FRAMES, _CLIP_FPS = 30, 10.0
_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless")


def diagnose(cache_dir: str | Path | None = None) -> Iterator[Check]:
    """Yield the checks, each as soon as it is done (None: the user's cache folder)."""
    yield from _tried("package", _package)
    library = list(_tried("library", _library))
    yield from library
    yield from _tried("memory", _memory)
    yield from _tried("cache", partial(_cache, cache_dir))
    yield from _tried("models", _models)
    yield from _tried("hub", _hub)
    yield from _tried("decoders", _decoders)
    if all(check.status != ERROR for check in library):
        cpu = list(_tried("cpu", _cpu))
        yield from cpu
        yield from _tried("backends", _backends)
        if all(check.status != ERROR for check in cpu):
            yield from _tried("choice", _choice)
            yield from _tried("self-test", _self_test)


def exit_code(checks: Sequence[Check]) -> int:
    """Return 0 if all that is necessary is fine, else the code of the first error."""
    return next((check.exit_code for check in checks if check.status == ERROR), 0)


def _tried(name: str, check: Callable[[], Check]) -> Iterator[Check]:
    """Run a check; what keeps it from ending is what it found."""
    try:
        yield check()
    except RetakeError as error:
        yield Check(name, ERROR, str(error), exit_code=error.exit_code)
    except ImportError as error:
        yield Check(
            name,
            ERROR,
            f"A package cannot be imported ({error}).",
            "install retake-edge again, into an environment of its own",
            NativeError.exit_code,
        )


# --- what is gathered -------------------------------------------------------------------------


def _package() -> Check:
    found = {"retake-edge": __version__, "Python": platform.python_version()}
    for names in (("numpy",), ("av",), _OPENCV, ("gguf",)):
        found |= dict([_version(names)])
    system = f"{platform.system()} {platform.machine()}"
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    return Check("package", OK, f"{text}, {system}", facts=found | {"system": system})


def _version(names: Sequence[str]) -> tuple[str, str]:
    """The first of some distributions that is installed; without one, the import will tell."""
    for name in names:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return names[0], "unknown"


def _library() -> Check:
    from retake_edge.llama import library as native

    _load_apart()
    llama = native.load_libraries()
    facts = {
        "origin": native.origin(),
        "llama": llama.llama_version().decode(),
        "abi": native.ABI_VERSION,
        "folder": str(native.library_dir()),
    }
    text = f"{facts['origin']}, version {facts['abi']}, in {facts['folder']}"
    return Check("library", OK, text, facts=facts)


def _load_apart() -> None:
    """Try the libraries in another process: built for another processor, they may end theirs.

    Raises:
        NativeError: they did. Any other error shows when they are loaded here.
    """
    from retake_edge.doctor.self_test import TIMEOUT_S, ending, python_apart
    from retake_edge.llama import library as native

    code = "from retake_edge.llama import library; library.load_libraries()"
    result = python_apart("-c", code, timeout_s=TIMEOUT_S)
    if result.returncode < 0:
        raise NativeError(
            f"Loading the libraries in {native.library_dir()} ends the process with "
            f"{ending(result.returncode)}; rebuild them on this machine, or with "
            "CMAKE_ARGS=-DGGML_NATIVE=OFF for several ones."
        )


def _cpu() -> Check:
    from retake_edge.llama import devices

    return cpu_check(devices.machine_instructions(), devices.library_instructions())


def _backends() -> Check:
    from retake_edge.doctor.vulkan_driver import drivers
    from retake_edge.llama import devices

    built = devices.backends()
    found = drivers() if "Vulkan" in built else []
    return backends_check(devices.devices(), built, devices.graphics_cards(), found)


def _memory() -> Check:
    from retake_edge.llama.buffers import available_memory_bytes
    from retake_edge.llama.devices import total_memory_bytes

    return memory_check(available_memory_bytes(), total_memory_bytes())


def _cache(cache_dir: str | Path | None) -> Check:
    from retake_edge.session.store.folder import SessionStore

    store = SessionStore(cache_dir)
    sessions = store.sessions()
    n_damaged = sum(bool(session.problem) for session in sessions)
    n_bytes = sum(session.n_bytes for session in sessions)
    return cache_check(store.cache_dir, len(sessions), n_damaged, n_bytes)


def _models() -> Check:
    """The bundled models: their files are there, and the ones that their manifests name."""
    from retake_edge.models.manifest import bundled_names, load_manifest

    sizes = {}
    for name in bundled_names():
        manifest = load_manifest(name)
        manifest.verify()
        sizes[name] = sum(file.stat().st_size for file in (manifest.model, manifest.mmproj))
    text = ", ".join(f"{name} ({size(n)})" for name, n in sizes.items())
    return Check("models", OK, text or "none bundled", facts={"n_bytes": sizes})


def _choice() -> Check:
    """Check what this machine could run, and whether a model for real videos is here."""
    from retake_edge.catalog.catalog import catalog
    from retake_edge.catalog.table import machine_line, next_step, table_lines

    entries = catalog()
    table = [*table_lines(entries), "", machine_line()]
    return choice_check(entries, table, next_step(entries))


def _hub() -> Check:
    """The models that were pulled; files that several names link to count once."""
    from retake_edge.models.hub.cache import cache_dir, cached_repos, snapshots

    sizes = {}
    for repo in cached_repos():
        files = {(folder / path).resolve() for folder, paths in snapshots(repo) for path in paths}
        if files:
            sizes[repo] = sum(file.stat().st_size for file in files)
    pulled = ", ".join(f"{repo} ({size(n)})" for repo, n in sizes.items()) or "no models"
    facts = {"folder": str(cache_dir()), "n_bytes": sizes}
    return Check("hub", OK, f"{cache_dir()}: {pulled}", facts=facts)


def _decoders() -> Check:
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(why_unread, (_clips_dir() / file for file in CLIPS.values()))
    return decoders_check(dict(zip(CLIPS, reasons, strict=True)))


def _clips_dir() -> Path:
    packaged = Path(__file__).parents[1] / "clips"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "tests" / "data" / "video"


def why_unread(path: Path) -> str:
    """Return why a clip's frames do not all come in their right colours, '' if they do."""
    from retake_edge.video.read import sample_frames

    try:
        batches = list(sample_frames(path, fps=_CLIP_FPS))
    except VideoError as error:
        return str(error)
    frames = [frame for batch in batches for frame in batch.frames]
    corners = [(frame[4, 4], frame[4, -5]) for frame in frames]
    is_right = all(left[0] > left[2] and right[2] > right[0] for left, right in corners)
    if len(frames) != _CLIP_FRAMES or not is_right:
        return f"{path.name} gave {len(frames)} of {_CLIP_FRAMES} frames, or wrong colours"
    return ""


def _self_test() -> Check:
    from retake_edge.doctor.self_test import run_self_test
    from retake_edge.llama import devices

    gpus = {device.name for device in devices.devices() if device.is_gpu}
    return self_test_check(run_self_test(), gpus)
