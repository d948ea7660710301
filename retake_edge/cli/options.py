"""The settings as command-line options, the same for every command that opens a video.

`@opens_video` gives a command all of them and hands it a finished `CliRequest`. Each belongs to
a group of the help (`retake_edge.cli.help`).
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from retake_edge import config
from retake_edge.catalog.user_config import MODEL_VARIABLE
from retake_edge.cli import help as groups
from retake_edge.errors import ConfigError
from retake_edge.formats import parse_time
from retake_edge.questions import decoded

_compression, _runtime = config.CompressionConfig(), config.RuntimeConfig()
_sampling, _generation = config.SamplingConfig(), config.GenerationConfig()
_look, _dpselect = config.LookConfig(), config.DPSelectConfig()


@dataclass(frozen=True)
class CliRequest:
    """What the options ask for: a model, its projector, all settings, the cache.

    `model` is a name, a path or user/repo[:quant] (None: the one for this video); `hub`:
    user/repo[:quant] in its place, downloaded if missing, and `offline`: only if it is downloaded
    already. `fit`: change settings so that the run fits. `given`: the parameters that were given.
    """

    model: str | None
    mmproj: Path | None
    settings: config.RetakeConfig
    use_cache: bool
    cache_dir: Path | None
    hub: str | None = None
    offline: bool = False
    fit: bool = False
    given: frozenset[str] = frozenset()


CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Where read videos are saved.  [default: the user's cache folder]",
        rich_help_panel=groups.SAVING,
        metavar="DIR",
    ),
]


def _option(panel: str, *names: str, help: str, metavar: str = "N", env: str = "") -> Any:
    """An option in a group of the help; `env`: its variable in llama.cpp, without the prefix."""
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, **_variable(env))


def _switch(panel: str, *names: str, help: str, env: str = "") -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **_variable(env))


def _variable(env: str) -> dict[str, Any]:
    """The variable that stands for an option; the whole help shows it."""
    return {"envvar": f"LLAMA_ARG_{env}", "show_envvar": False} if env else {}


def _options(
    model: Annotated[
        str | None,
        _option(
            groups.MODEL,
            *("-m", "--model"),
            help="A name, a GGUF file or USER/REPO[:QUANT].",
            metavar="MODEL",
            env="MODEL",
        ),
    ] = None,
    hf_repo: Annotated[
        str | None,
        _option(
            groups.MODEL_FILES,
            *("-hf", "--hf-repo"),
            help="In place of -m: a model of the hub, downloaded if missing.",
            metavar="USER/REPO[:QUANT]",
            env="HF_REPO",
        ),
    ] = None,
    offline: Annotated[
        bool,
        _switch(
            groups.MODEL_FILES,
            "--offline",
            help="Download nothing: use what is here.",
            env="OFFLINE",
        ),
    ] = False,
    mmproj: Annotated[
        Path | None,
        _option(
            groups.MODEL_FILES,
            *("-mm", "--mmproj"),
            help="The projector's GGUF.  [default: the one beside the model]",
            metavar="FILE",
            env="MMPROJ",
        ),
    ] = None,
    start: Annotated[
        str | None,
        _option(groups.VIDEO, help="Where to begin: 90, 1:30 or 1:02:00.", metavar="TIME"),
    ] = None,
    end: Annotated[
        str | None, _option(groups.VIDEO, help="Where to end, written alike.", metavar="TIME")
    ] = None,
    fps: Annotated[
        float | None,
        _option(groups.VIDEO, help="Frames a second.  [default: the model's, or 2]"),
    ] = _sampling.fps,
    max_frames: Annotated[
        int | None,
        _option(groups.FRAMES, help="Most frames looked at.  [default: the model's, or 2048]"),
    ] = _sampling.max_frames,
    long_side: Annotated[
        int | None,
        _option(
            groups.FRAMES, help="Longer side of a frame.  [default: the model's]", metavar="PX"
        ),
    ] = _sampling.long_side_px,
    keep_ratio: Annotated[
        float | None,
        _option(
            groups.KEEPING,
            help="Share of vision tokens kept, in (0, 1].  [default: what fits]",
            metavar="SHARE",
        ),
    ] = _compression.keep_ratio,
    kv_budget: Annotated[
        int | None,
        _option(groups.KEEPING, help="Most KV cells kept for the video.  [default: 32000]"),
    ] = _compression.kv_budget,
    prefill_chunk_frames: Annotated[
        int, _option(groups.KEEPING, help="Frames prefilled between two compressions.")
    ] = _compression.prefill_chunk_frames,
    dpselect_ratio: Annotated[
        float,
        _option(
            groups.KEEPING,
            help="Share of frames that are prefilled at all: those that change most.",
            metavar="SHARE",
        ),
    ] = _dpselect.ratio,
    policy: Annotated[
        str,
        _option(
            groups.KEEPING,
            help=f"Which cells stay: {', '.join(config.POLICIES)}.",
            metavar="NAME",
        ),
    ] = _compression.policy,
    positions: Annotated[
        str,
        _option(
            groups.KEEPING,
            help=f"Positions of kept cells: {', '.join(config.POSITION_MODES)}.",
            metavar="NAME",
        ),
    ] = _compression.positions,
    pivot: Annotated[
        str,
        _option(
            groups.KEEPING,
            help=f"Keyframe tokens: {', '.join(config.PIVOT_MODES)}.",
            metavar="NAME",
        ),
    ] = _compression.pivot,
    policy_seed: Annotated[
        int, _option(groups.KEEPING, help="Seed of the policies that choose at random.")
    ] = _compression.seed,
    seed: Annotated[
        int, _option(groups.DRAWING, "-s", "--seed", help="Seed of the draw, with --temp.")
    ] = _generation.seed,
    n_ctx: Annotated[
        int | None,
        _option(
            groups.RUNNING,
            "-c",
            "--ctx-size",
            help="KV cells.  [default: what is needed]",
            env="CTX_SIZE",
        ),
    ] = _runtime.n_ctx,
    n_gpu_layers: Annotated[
        int,
        _option(
            groups.RUNNING,
            "-ngl",
            "--n-gpu-layers",
            help="Layers on the GPU; -1: all.",
            env="N_GPU_LAYERS",
        ),
    ] = _runtime.n_gpu_layers,
    n_threads: Annotated[
        int | None,
        _option(
            groups.RUNNING,
            "-t",
            "--threads",
            help="CPU threads.  [default: llama.cpp's]",
            env="THREADS",
        ),
    ] = _runtime.n_threads,
    n_batch: Annotated[
        int,
        _option(groups.RUNNING, "-b", "--batch-size", help="Most tokens of a batch.", env="BATCH"),
    ] = _runtime.n_batch,
    n_ubatch: Annotated[
        int,
        _option(
            groups.RUNNING,
            "-ub",
            "--ubatch-size",
            help="Most tokens computed at once.",
            env="UBATCH",
        ),
    ] = _runtime.n_ubatch,
    type_k: Annotated[
        str,
        _option(
            groups.RUNNING,
            *("-ctk", "--cache-type-k"),
            help=f"K: {', '.join(config.KV_TYPES)}.",
            metavar="TYPE",
            env="CACHE_TYPE_K",
        ),
    ] = _runtime.type_k,
    type_v: Annotated[
        str,
        _option(
            groups.RUNNING,
            *("-ctv", "--cache-type-v"),
            help=f"V: {', '.join(config.KV_TYPES)}.",
            metavar="TYPE",
            env="CACHE_TYPE_V",
        ),
    ] = _runtime.type_v,
    flash_attention: Annotated[
        str,
        _option(
            groups.RUNNING,
            *("-fa", "--flash-attn"),
            help="Flash attention: on, off or auto.",
            metavar="on|off|auto",
            env="FLASH_ATTN",
        ),
    ] = _runtime.flash_attention,
    mmproj_offload: Annotated[
        bool,
        _switch(
            groups.RUNNING,
            "--mmproj-offload/--no-mmproj-offload",
            help="Vision on the GPU.",
            env="MMPROJ_OFFLOAD",
        ),
    ] = _runtime.mmproj_offload,
    system: Annotated[
        str,
        _option(
            groups.DRAWING,
            *("-sys", "--system-prompt"),
            help="Said before the video.  [default: the template's]",
            metavar="TEXT",
        ),
    ] = "",
    max_tokens: Annotated[
        int,
        _option(
            groups.DRAWING, "-n", "--predict", help="Most tokens of an answer.", env="N_PREDICT"
        ),
    ] = _generation.max_tokens,
    temperature: Annotated[
        float | None,
        _option(
            groups.DRAWING,
            "--temp",
            help="0: always the likeliest word.  [default: the model's, or 0]",
            env="TEMPERATURE",
        ),
    ] = _generation.temperature,
    top_k: Annotated[
        int | None,
        _option(
            groups.DRAWING,
            "--top-k",
            help="Most words drawn from; 0: all.  [default: 40]",
            env="TOP_K",
        ),
    ] = _generation.top_k,
    top_p: Annotated[
        float | None,
        _option(
            groups.DRAWING,
            "--top-p",
            help="Draw from the likeliest this share.  [default: 0.95]",
            env="TOP_P",
        ),
    ] = _generation.top_p,
    min_p: Annotated[
        float | None,
        _option(
            groups.DRAWING,
            "--min-p",
            help="Least share of the likeliest word's.  [default: 0.05]",
            env="MIN_P",
        ),
    ] = _generation.min_p,
    repeat_penalty: Annotated[
        float | None,
        _option(
            groups.DRAWING,
            "--repeat-penalty",
            help="Above 1: repeat words less.  [default: 1]",
            env="REPEAT_PENALTY",
        ),
    ] = _generation.repeat_penalty,
    presence_penalty: Annotated[
        float | None,
        _option(
            groups.DRAWING,
            "--presence-penalty",
            help="Above 0: use new words more.  [default: 0]",
            env="PRESENCE_PENALTY",
        ),
    ] = _generation.presence_penalty,
    repeat_last_n: Annotated[
        int | None,
        _option(
            groups.DRAWING, "--repeat-last-n", help="Words that both look back at.  [default: 64]"
        ),
    ] = _generation.repeat_last_n,
    grammar: Annotated[
        str,
        _option(
            groups.DRAWING,
            "--grammar",
            help="A GBNF grammar that answers must follow.",
            metavar="GBNF",
        ),
    ] = "",
    grammar_file: Annotated[
        Path | None,
        _option(
            groups.DRAWING, "--grammar-file", help="A file with such a grammar.", metavar="FILE"
        ),
    ] = None,
    json_schema: Annotated[
        str,
        _option(
            groups.DRAWING,
            *("-j", "--json-schema"),
            help="A JSON schema that answers must follow.",
            metavar="SCHEMA",
        ),
    ] = "",
    json_schema_file: Annotated[
        Path | None,
        _option(
            groups.DRAWING,
            *("-jf", "--json-schema-file"),
            help="A file with such a schema.",
            metavar="FILE",
        ),
    ] = None,
    look_again: Annotated[
        int | None,
        _option(
            groups.ANSWER,
            help="Frames looked at again, closely, after a first answer.  [default: the model's]",
        ),
    ] = _look.frames,
    no_cache: Annotated[
        bool,
        _switch(groups.MODEL, "--no-cache", help="Leave nothing of the video on the disk."),
    ] = False,
    cache_dir: CacheDir = None,
    fit: Annotated[
        bool,
        _switch(groups.MODEL, "--fit", help="Change settings so that it fits into the memory."),
    ] = False,
) -> CliRequest:
    start_s = 0.0 if start is None else parse_time(start, "--start")
    end_s = None if end is None else parse_time(end, "--end")
    settings = config.RetakeConfig(
        config.SamplingConfig(fps, max_frames, long_side, start_s, end_s),
        config.DPSelectConfig(ratio=dpselect_ratio),
        compression=config.CompressionConfig(
            policy=policy,
            keep_ratio=keep_ratio,
            kv_budget=kv_budget,
            prefill_chunk_frames=prefill_chunk_frames,
            positions=positions,
            pivot=pivot,
            seed=policy_seed,
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
            flash_attention=flash_attention,
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
        look=config.LookConfig(look_again),
    )
    if model and hf_repo:
        raise ConfigError(f"-m {model} and -hf {hf_repo} both name a model; give one of them.")
    return CliRequest(
        model or None, mmproj, settings, not no_cache, cache_dir, hf_repo, offline, fit
    )


def _grammar(grammar: str, grammar_file: Path | None, schema: str, schema_file: Path | None) -> str:
    """The one grammar that was asked for, as GBNF text; '' for none."""
    asked = [value for value in (grammar, grammar_file, schema, schema_file) if value]
    if len(asked) > 1:
        raise ConfigError("Give one of --grammar, --grammar-file, -j and -jf; each is a grammar.")
    if schema or schema_file:
        from retake_edge.llama.grammar import grammar_of_schema

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
    merged.append(inspect.Parameter("ctx", keyword, annotation=typer.Context))

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        context = values.pop("ctx")
        given = _given(context, values)
        values |= dict.fromkeys(_yielding(context, given))
        request = _options(**{name: values.pop(name) for name in shared})
        command(**values, request=replace(request, given=given))

    wrapper.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {}
    del wrapper.__wrapped__
    return wrapper


def _given(context: typer.Context, names: Iterable[str]) -> frozenset[str]:
    """The parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return frozenset(
        name for name, source in sources.items() if source and source.name == "COMMANDLINE"
    )


def _yielding(context: typer.Context, given: frozenset[str]) -> list[str]:
    """Models of the environment that give way: to a flag, and to our own variable."""
    if given & {"model", "hf_repo"} or os.environ.get(MODEL_VARIABLE):
        return [name for name in ("model", "hf_repo") if name not in given]
    is_both = all(context.params.get(name) for name in ("model", "hf_repo"))
    return ["hf_repo"] if is_both else []
