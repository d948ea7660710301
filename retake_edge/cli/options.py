"""The configuration as command-line options, the same for every command that opens a video.

An option of a setting is made from its field in `config`; what no field says (the model, its files,
the cache) is written here. `@opens_video` gives a command all of them and hands it a finished
`CliRequest`. Each belongs to a group of the help (`retake_edge.cli.help`).
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from retake_edge.catalog.user_config import MODEL_VARIABLE
from retake_edge.cli import help as groups
from retake_edge.config import RetakeConfig, all_settings
from retake_edge.errors import ConfigError
from retake_edge.formats import parse_time
from retake_edge.questions import decoded
from retake_edge.setting import Setting

_GROUPS = {
    "sampling": groups.FRAMES,
    "compression": groups.KEEPING,
    "runtime": groups.RUNNING,
    "prompt": groups.DRAWING,
    "generation": groups.DRAWING,
    "dpselect": groups.KEEPING,
    "look": groups.ANSWER,
    "look.keep_features": groups.SAVING,
}
"""Of a section, or of one setting."""
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True)
class CliRequest:
    """The request that the options make: a model, its projector, the configuration, the cache.

    `model` is a name, a path or user/repo[:quant] (None: the one for this video); `hub`:
    user/repo[:quant] in its place, downloaded if missing, and `offline`: only if it is downloaded
    already. `fit`: change settings so that the run fits. `given`: what stands on the command line,
    settings by their path in the configuration ('sampling.fps'), other options by their parameter.
    """

    model: str | None
    mmproj: Path | None
    config: RetakeConfig
    use_cache: bool
    cache_dir: Path | None
    hub: str | None = None
    offline: bool = False
    fit: bool = False
    given: frozenset[str] = frozenset()


def option(path: str, help: str | None = None) -> Any:
    """Return a setting as an option, for a command that has only some of them.

    `help`: what it says there, where it means something narrower.
    """
    one = all_settings()[path]
    return typer.Option(*one.flags, help=help or one.help_line)


CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Where read videos are saved.  [default: the user's cache folder]",
        rich_help_panel=groups.SAVING,
        metavar="DIR",
    ),
]


def _option(
    panel: str, *names: str, help: str, metavar: str | None = None, env: str = "", **more: Any
) -> Any:
    """An option in a group of the help; `env`: its variable in llama.cpp, without the prefix."""
    if env:
        more |= {"envvar": f"LLAMA_ARG_{env}", "show_envvar": False}
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, **more)


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
        _option(
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
    no_cache: Annotated[
        bool,
        _option(groups.MODEL, "--no-cache", help="Leave nothing of the video on the disk."),
    ] = False,
    cache_dir: CacheDir = None,
    fit: Annotated[
        bool,
        _option(groups.MODEL, "--fit", help="Change settings so that it fits into the memory."),
    ] = False,
    *,
    settings: Mapping[str, Any],
) -> CliRequest:
    """The options that are no settings; `settings`: the values of those, by path."""
    values = dict(settings)
    grammar = values["generation.grammar"]
    values["generation.grammar"] = _grammar(grammar, grammar_file, json_schema, json_schema_file)
    config = RetakeConfig.from_paths(values)
    if model and hf_repo:
        raise ConfigError(f"-m {model} and -hf {hf_repo} both name a model; give one of them.")
    return CliRequest(model or None, mmproj, config, not no_cache, cache_dir, hf_repo, offline, fit)


def _setting_parameters() -> Iterator[tuple[str, inspect.Parameter]]:
    """Each setting with a flag, by its path, as a parameter that typer understands."""
    for path, one in all_settings().items():
        if one.flags:
            name = path.replace(".", "_")
            default = None if one.is_time else one.default
            yield (
                path,
                inspect.Parameter(
                    name, _KEYWORD, default=default, annotation=_annotation(path, one)
                ),
            )


def _annotation(path: str, one: Setting) -> Any:
    panel = _GROUPS.get(path, _GROUPS[path.partition(".")[0]])
    panel = groups.VIDEO if one.is_everyday else panel
    kind: Any = str if one.is_time else one.kind  # times are parsed with their flag's name
    is_switch = one.kind is bool
    flags = (f"{one.flag}/--no-{one.flag.lstrip('-')}",) if is_switch else one.flags
    metavar = None if is_switch else one.metavar
    # Typer's own parsing has no words for llama.cpp's defaults; what is not typed is no text.
    parser = {"parser": lambda value: one.parsed(str(value))} if one.llama_defaults else {}
    made = _option(panel, *flags, help=one.help_line, metavar=metavar, env=one.env, **parser)
    return Annotated[kind | None if one.is_optional or one.is_time else kind, made]


def _value(one: Setting, value: Any) -> Any:
    if one.is_time:
        return one.default if value is None else parse_time(value, one.flag)
    return value


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
    shared = dict(inspect.signature(_options, eval_str=True).parameters)
    del shared["settings"]
    paths = {parameter.name: path for path, parameter in _setting_parameters()}
    merged = [p.replace(kind=_KEYWORD) for name, p in own.items() if name != "request"]
    merged += _in_order(shared, [parameter for _, parameter in _setting_parameters()])
    merged.append(inspect.Parameter("ctx", _KEYWORD, annotation=typer.Context))

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        context = values.pop("ctx")
        given = _given(context, values)
        values |= dict.fromkeys(_yielding(context, given))
        known = all_settings()
        settings = {path: _value(known[path], values.pop(name)) for name, path in paths.items()}
        request = _options(**{name: values.pop(name) for name in shared}, settings=settings)
        given = frozenset(paths.get(name, name) for name in given)
        command(**values, request=replace(request, given=given))

    wrapper.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {}
    del wrapper.__wrapped__
    return wrapper


def _in_order(
    shared: Mapping[str, inspect.Parameter], settings: list[inspect.Parameter]
) -> list[inspect.Parameter]:
    """The order of the help: which model, the settings, other forms of a grammar, the cache."""
    first = [p.replace(kind=_KEYWORD) for p in shared.values()]
    n_model = list(shared).index("mmproj") + 1
    return [*first[:n_model], *settings, *first[n_model:]]


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
