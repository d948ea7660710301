"""Help that fits a screen: the everyday options in groups, with examples; --help-all has the rest.

An option belongs to the group that its `rich_help_panel` names; those of `MORE` are for --help-all.
Examples stand in the command's epilog, a line each.
"""

from __future__ import annotations

import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer
from typer.core import TyperCommand

FRAMES = "Frames"
MODEL_FILES = "Model files"
KEEPING = "What is kept of the video"
RUNNING = "Running the model (as in llama.cpp)"
DRAWING = "How the answer is drawn (as in llama.cpp)"
SAVING = "Saved videos"
QUESTIONS = "Questions from a file"
MEASURING = "What is measured"
MORE = (QUESTIONS, MODEL_FILES, FRAMES, KEEPING, RUNNING, DRAWING, SAVING, MEASURING)
"""Groups that --help leaves out."""

VIDEO, MODEL, ANSWER, OPTIONS = "Video", "Model", "Answer", "Options"
_MOST_COLUMNS = 100
_LEFT_COLUMNS = 26


class HelpfulCommand(TyperCommand):
    """A command with a short help and a whole one, and takes -v."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's parameters with -v and --help-all, which every command has."""
        return [*super().get_params(ctx), *_flags()]

    def get_help(self, ctx: Any) -> str:
        """Return the short help."""
        return self.help_text(ctx, everything=False)

    def help_text(self, ctx: Any, *, everything: bool) -> str:
        """Return the help: usage, what the command does, examples, options by group."""
        width = min(_MOST_COLUMNS, shutil.get_terminal_size().columns)
        about = textwrap.dedent(self.help or "").strip().split("\n\n")
        lines = [f"Usage: {ctx.command_path} {' '.join(['[OPTIONS]', *self._arguments()])}", ""]
        for paragraph in about if everything else about[:1]:
            lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
        lines += [f"  {line}" for line in (self.epilog or "").strip().splitlines()]
        lines += [""] if self.epilog else []
        for title, rows in self._groups(ctx, everything=everything):
            lines.append(f"{title}:")
            for names, text in rows:
                lines += _row(names, text, width)
        return "\n".join(lines)

    def _arguments(self) -> Iterator[str]:
        """The arguments as they are written: VIDEO, [QUESTION], VIDEO..."""
        for parameter in self.params:
            if getattr(parameter, "param_type_name", "") == "argument":
                name = parameter.metavar or str(parameter.name).upper()
                is_free = not parameter.required and not name.startswith("[")
                yield f"[{name}]" if is_free else name

    def _groups(self, ctx: Any, *, everything: bool) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Options by the title of their group: everyday ones first, help last."""
        found: dict[str, list[tuple[str, str]]] = {}
        has_more = False
        for parameter in self.get_params(ctx):
            title = getattr(parameter, "rich_help_panel", None) or OPTIONS
            record = parameter.get_help_record(ctx)
            if record is None or getattr(parameter, "param_type_name", "") == "argument":
                continue
            if parameter.name == "help":
                continue
            has_more |= title in MORE
            if everything or title not in MORE:
                names, text = record
                variable = getattr(parameter, "envvar", None) if everything else None
                text += f"  [env: {variable}]" if variable else ""
                found.setdefault(title, []).append((names, text))
        order = [*(title for title in found if title not in MORE), *MORE]
        yield from ((title, found[title]) for title in order if title in found)
        rest = "This page; --help-all shows every option." if has_more else "This page."
        yield "Help", [("-h, --help", rest)]


@cache
def _flags() -> tuple[Any, ...]:
    """--help-all and -v, which act by themselves and no help lists."""
    app = typer.Typer(add_completion=False)
    flag: dict[str, Any] = {"hidden": True, "expose_value": False}

    @app.command()
    def _(
        whole: bool = typer.Option(False, "--help-all", is_eager=True, callback=_show_all, **flag),
        verbose: bool = typer.Option(False, "-v", "--verbose", callback=_show_log_if, **flag),
    ) -> None: ...

    params = typer.main.get_command(app).params
    return tuple(param for param in params if param.name != "help")


def _show_all(context: typer.Context, is_asked: bool) -> None:
    if is_asked:
        command: Any = context.command
        typer.echo(command.help_text(context, everything=True))
        raise typer.Exit


def _show_log_if(is_asked: bool) -> None:
    if is_asked:
        show_log()


def _row(names: str, text: str, width: int) -> list[str]:
    """An option with its help beside it, on as many lines as it takes."""
    left, indent = f"  {names}", " " * _LEFT_COLUMNS
    wrapped = textwrap.wrap(text, max(20, width - _LEFT_COLUMNS)) or [""]
    if len(left) >= _LEFT_COLUMNS:
        return [left, *(indent + line for line in wrapped)]
    return [f"{left:<{_LEFT_COLUMNS}}{wrapped[0]}", *(indent + line for line in wrapped[1:])]


def examples(*lines: str) -> str:
    """Return examples as an epilog."""
    return "\n".join(f"retake-edge {line}" for line in lines)


def show_log() -> None:
    """Write what the library and llama.cpp log to standard error."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(message)s")
