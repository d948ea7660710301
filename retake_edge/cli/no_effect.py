"""Warnings about options that were given and change nothing, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from retake_edge.cli.streams import tell
from retake_edge.config import WHOLE_POLICIES, all_settings, flag_of

if TYPE_CHECKING:
    from retake_edge.cli.options import CliRequest
    from retake_edge.session.session import Session

_GRAMMARS = {"grammar_file": "--grammar-file", "json_schema": "-j", "json_schema_file": "-jf"}
_RANDOM_POLICIES = ("random", "random-stratified")
_DRAWN = ("generation.top_k", "generation.top_p", "generation.min_p")
_ON_GPU = ("runtime.n_gpu_layers", "runtime.mmproj_offload")
_OF_ANY_ANSWER = ("generation.max_tokens", "generation.seed")


def warn_of_no_effect(request: CliRequest, session: Session, *, asks: bool) -> None:
    """Tell of each option that was given in vain; `asks`: whether any question is answered."""
    found = dict([*_in_vain_here(request, session), *_in_vain(request)])
    for option, why in found.items():
        tell(f"warning: {option} has no effect: {why}")
    if not asks:
        drawing = {p: flag_of(p) for p in all_settings() if p.startswith("generation.")}
        for name, option in (drawing | _GRAMMARS).items():
            if name in request.given and name not in _OF_ANY_ANSWER:
                tell(f"warning: {option} has no effect: no question is answered")


def _in_vain(request: CliRequest) -> Iterator[tuple[str, str]]:
    """Yield options without effect and the reason, as far as the settings alone tell."""
    given, kept, drawn = request.given, request.config.compression, request.config.generation
    if kept.policy in WHOLE_POLICIES:
        for path in ("compression.pivot", "compression.positions", "compression.budgets"):
            if path in given:
                yield flag_of(path), f"with --policy {kept.policy} no part of a frame is left out"
    elif "compression.pivot" in given and kept.policy != "pivotkv":
        yield "--pivot", f"--policy {kept.policy} knows no keyframe tokens"
    if "compression.seed" in given and kept.policy not in _RANDOM_POLICIES:
        yield "--policy-seed", f"--policy {kept.policy} chooses nothing at random"
    if kept.policy == "none":
        for path in ("compression.keep_ratio", "compression.kv_budget"):
            if path in given:
                yield flag_of(path), "with --policy none all is kept"
    if "offline" in given and not request.hub:
        yield "--offline", "it goes with -hf, and nothing is downloaded without"
    if "cache_dir" in given and not request.use_cache:
        yield "--cache-dir", "with --no-cache nothing is saved"
    if "look.keep_features" in given and not request.use_cache:
        yield "--keep-features", "with --no-cache nothing is saved"
    is_penalty = drawn.repeat_penalty not in (None, 1) or drawn.presence_penalty not in (None, 0)
    if "generation.repeat_last_n" in given and not is_penalty:
        yield "--repeat-last-n", "no --repeat-penalty or --presence-penalty looks back"


def _in_vain_here(request: CliRequest, session: Session) -> Iterator[tuple[str, str]]:
    """Yield options without effect and the reason, as the model, the video and the machine tell."""
    given, video, kept = request.given, session.video, request.config.compression
    rule, name = session.manifest.frames, session.manifest.name
    is_drawn = session.engine.sampler_settings.temperature > 0
    if not is_drawn:
        for option in _DRAWN:
            if option in given:
                yield flag_of(option), "the likeliest word is always taken; --temp draws"
    if "generation.seed" in given and not is_drawn:
        yield "--seed", "nothing is drawn by chance; --temp draws"
    if "sampling.long_side_px" in given and rule.width_px:
        yield "--long-side", f"{name} sees all frames at {rule.width_px}x{rule.height_px}"
    end_s = request.config.sampling.end_s
    if "sampling.end_s" in given and end_s is not None and end_s > video.duration_s + 1:
        yield "--end", "the video ends before"
    if kept.policy not in WHOLE_POLICIES and (
        video.not_compressible or video.reduced_by == "nothing"
    ):
        why = (
            f"{name} gets whole frames ({video.not_compressible})"
            if video.not_compressible
            else "all is kept"
        )
        for field in ("policy", "pivot", "positions", "budgets"):
            if f"compression.{field}" in given:
                yield flag_of(f"compression.{field}"), why
    if "compression.guide" in given and not video.guide:
        why = f"{name} gets whole frames" if video.not_compressible else "all is kept"
        yield "--guided", why
    if "sampling.fps" in given and _is_capped(session):
        most = request.config.sampling.max_frames or session.manifest.max_frames
        yield (
            "--fps",
            f"at most {most} frames are looked at; --max-frames or a shorter part do more",
        )
    look = session.second_look
    if "look.keep_features" in given and request.config.look.keep_features and not look.kept:
        missing = "none were saved when this video was read; 'sessions rm' has it read again"
        yield "--keep-features", look.why_not or missing
    wanted = [path for path in _ON_GPU if path in given and not _is_off(request, path)]
    if wanted and not _has_gpu():
        for path in wanted:
            yield flag_of(path), "no GPU is found"


def _is_capped(session: Session) -> bool:
    """Return whether the frames are fewer than their rate asks for."""
    sampling, video = session.config.sampling, session.video
    end_s = min(sampling.end_s or video.duration_s, video.duration_s)
    most = sampling.max_frames or session.manifest.max_frames
    return (end_s - sampling.start_s) * (sampling.fps or 0) > most + 1


def _is_off(request: CliRequest, option: str) -> bool:
    """Return whether the option asks for no GPU, which is what happens."""
    return not getattr(request.config.runtime, option.partition(".")[2])


def _has_gpu() -> bool:
    from retake_edge.llama.devices import devices

    return any(device.is_gpu for device in devices())
