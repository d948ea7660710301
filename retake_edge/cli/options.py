"""The settings as command-line options, the same for every command that opens a video.

`@opens_video` gives a command all of them and hands it a finished `VideoRequest`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from retake_edge import config
from retake_edge.errors import ConfigError
from retake_edge.questions import decoded

_pivotkv, _runtime = config.PivotKVConfig(), config.RuntimeConfig()
_sampling, _generation = config.SamplingConfig(), config.GenerationConfig()


@dataclass(frozen=True)
class VideoRequest:
    """What the options ask for: a model, its projector, all settings, the cache.

    `model` is a name or a path; `hub`: user/repo[:quant] in its place, and `offline`: only if it
    is downloaded already. `fit`: change settings so that the run fits.
    """

    model: str
    mmproj: Path | None
    settings: config.RetakeConfig
    use_cache: bool
    cache_dir: Path | None
    hub: str | None = None
    offline: bool = False
    fit: bool = False


CacheDir = Annotated[
    Path | None,
    typer.Option(help="Where sessions are saved.  [default: the user's cache folder]"),
]


def _options(
    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", help="A model's name, or the path of its GGUF.  [default: tiny]"
        ),
    ] = None,
    hf_repo: Annotated[
        str | None,
        typer.Option(
            "-hf", "--hf-repo", help="In place of -m: USER/REPO[:QUANT], downloaded if missing."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="With -hf: use what is downloaded, or say so.")
    ] = False,
    mmproj: Annotated[
        Path | None,
        typer.Option(
            "-mm", "--mmproj", help="The projector's GGUF.  [default: the one beside the model]"
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames sampled a second.  [default: the model's, or 2]")
    ] = _sampling.fps,
    max_frames: Annotated[
        int | None, typer.Option(help="Most frames sampled.  [default: the model's, or 2048]")
    ] = _sampling.max_frames,
    long_side: Annotated[
        int | None, typer.Option(help="Longer side of a frame in px.  [default: the model's]")
    ] = _sampling.long_side_px,
    start: Annotated[float, typer.Option(help="First second looked at.")] = _sampling.start_s,
    end: Annotated[
        float | None, typer.Option(help="Last second looked at.  [default: the video's]")
    ] = _sampling.end_s,
    keep_ratio: Annotated[
        float | None,
        typer.Option(help="Share of vision tokens kept, in (0, 1].  [default: what fits]"),
    ] = _pivotkv.keep_ratio,
    kv_budget: Annotated[
        int | None, typer.Option(help="Most KV cells kept for the video.  [default: 32000]")
    ] = _pivotkv.kv_budget,
    prefill_chunk_frames: Annotated[
        int, typer.Option(help="Frames prefilled between two compressions.")
    ] = _pivotkv.prefill_chunk_frames,
    policy: Annotated[
        str, typer.Option(help=f"Which cells stay: {', '.join(config.POLICIES)}.")
    ] = _pivotkv.policy,
    positions: Annotated[
        str, typer.Option(help=f"Positions of kept cells: {' or '.join(config.POSITION_MODES)}.")
    ] = _pivotkv.positions,
    pivot: Annotated[
        str, typer.Option(help=f"Keyframe tokens: {', '.join(config.PIVOT_MODES)}.")
    ] = _pivotkv.pivot,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed of random choices.")] = 0,
    n_ctx: Annotated[
        int | None, typer.Option("-c", "--ctx-size", help="KV cells.  [default: what is needed]")
    ] = _runtime.n_ctx,
    n_gpu_layers: Annotated[
        int, typer.Option("-ngl", "--n-gpu-layers", help="Layers on the GPU; -1: all.")
    ] = _runtime.n_gpu_layers,
    n_threads: Annotated[
        int | None, typer.Option("-t", "--threads", help="CPU threads.  [default: llama.cpp's]")
    ] = _runtime.n_threads,
    n_batch: Annotated[
        int, typer.Option("-b", "--batch-size", help="Most tokens of a batch.")
    ] = _runtime.n_batch,
    n_ubatch: Annotated[
        int, typer.Option("-ub", "--ubatch-size", help="Most tokens computed at once.")
    ] = _runtime.n_ubatch,
    type_k: Annotated[
        str, typer.Option("-ctk", "--cache-type-k", help=f"K: {', '.join(config.KV_TYPES)}.")
    ] = _runtime.type_k,
    type_v: Annotated[
        str, typer.Option("-ctv", "--cache-type-v", help=f"V: {', '.join(config.KV_TYPES)}.")
    ] = _runtime.type_v,
    mmproj_offload: Annotated[
        bool, typer.Option("--mmproj-offload/--no-mmproj-offload", help="Vision on the GPU.")
    ] = _runtime.mmproj_offload,
    system: Annotated[
        str,
        typer.Option(
            "-sys", "--system-prompt", help="Said before the video.  [default: the template's]"
        ),
    ] = "",
    max_tokens: Annotated[
        int, typer.Option("-n", "--predict", help="Most tokens of an answer.")
    ] = _generation.max_tokens,
    temperature: Annotated[
        float | None,
        typer.Option("--temp", help="0: always the likeliest word.  [default: the model's, or 0]"),
    ] = _generation.temperature,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Most words drawn from; 0: all.  [default: 40]")
    ] = _generation.top_k,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", help="Draw from the likeliest this share.  [default: 0.95]"),
    ] = _generation.top_p,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", help="Least share of the likeliest word's.  [default: 0.05]"),
    ] = _generation.min_p,
    repeat_penalty: Annotated[
        float | None,
        typer.Option("--repeat-penalty", help="Above 1: repeat words less.  [default: 1]"),
    ] = _generation.repeat_penalty,
    presence_penalty: Annotated[
        float | None,
        typer.Option("--presence-penalty", help="Above 0: use new words more.  [default: 0]"),
    ] = _generation.presence_penalty,
    repeat_last_n: Annotated[
        int | None,
        typer.Option("--repeat-last-n", help="Words that both look back at.  [default: 64]"),
    ] = _generation.repeat_last_n,
    grammar: Annotated[
        str, typer.Option("--grammar", help="A GBNF grammar that answers must follow.")
    ] = "",
    grammar_file: Annotated[
        Path | None, typer.Option("--grammar-file", help="A file with such a grammar.")
    ] = None,
    json_schema: Annotated[
        str, typer.Option("-j", "--json-schema", help="A JSON schema that answers must follow.")
    ] = "",
    json_schema_file: Annotated[
        Path | None, typer.Option("-jf", "--json-schema-file", help="A file with such a schema.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither use nor save a session.")
    ] = False,
    cache_dir: CacheDir = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Change settings so that it fits into the memory.")
    ] = False,
) -> VideoRequest:
    settings = config.RetakeConfig(
        config.SamplingConfig(fps, max_frames, long_side, start, end),
        pivotkv=config.PivotKVConfig(
            policy=policy,
            keep_ratio=keep_ratio,
            kv_budget=kv_budget,
            prefill_chunk_frames=prefill_chunk_frames,
            positions=positions,
            pivot=pivot,
            seed=seed,
        ),
        runtime=config.RuntimeConfig(
            n_ctx=n_ctx,
            n_gpu_layers=n_gpu_layers,
            n_threads=n_threads,
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            type_k=type_k,
            type_v=type_v,
            mmproj_offload=mmproj_offload,
        ),
        prompt=config.PromptConfig(system),
        generation=config.GenerationConfig(
            max_tokens,
            temperature,
            seed,
            top_k,
            top_p,
            min_p,
            repeat_penalty,
            presence_penalty,
            repeat_last_n,
            _grammar(grammar, grammar_file, json_schema, json_schema_file),
        ),
    )
    if model and hf_repo:
        raise ConfigError(f"-m {model} and -hf {hf_repo} both name a model; give one of them.")
    return VideoRequest(
        model or "tiny", mmproj, settings, not no_cache, cache_dir, hf_repo, offline, fit
    )


def _grammar(grammar: str, grammar_file: Path | None, schema: str, schema_file: Path | None) -> str:
    """The one grammar that was asked for, as GBNF text; '' for none."""
    asked = [value for value in (grammar, grammar_file, schema, schema_file) if value]
    if len(asked) > 1:
        raise ConfigError("Give one of --grammar, --grammar-file, -j and -jf; each is a grammar.")
    if schema or schema_file:
        from retake_edge.sampler import grammar_of_schema

        return grammar_of_schema(schema or _text_of(schema_file))
    return grammar or _text_of(grammar_file)


def _text_of(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return decoded(f"The file {file}", file.read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read {file} ({error.strerror}); check the path.") from None


def opens_video(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose last parameter is `request` all options that open a video."""
    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(_options, eval_str=True).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    merged = [p.replace(kind=keyword) for name, p in own.items() if name != "request"]
    merged += [p.replace(kind=keyword) for p in shared.values()]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        request = _options(**{name: values.pop(name) for name in shared})
        command(**values, request=request)

    wrapper.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {}
    del wrapper.__wrapped__
    return wrapper
