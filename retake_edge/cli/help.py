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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show all options where --help-all is among the arguments."""
        before_end = args[: args.index("--")] if "--" in args else args
        if "--help-all" in before_end:
            typer.echo(self.help_text(ctx, everything=True))
            ctx.exit()
        n_more = len(before_end)
        kept = [arg for arg in before_end if arg not in ("-v", "--verbose")]
        if len(kept) < n_more:
            show_log()
        return super().parse_args(ctx, kept + args[n_more:])

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
            for names, told in rows:
                lines += _row(names, told, width)
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
                found.setdefault(title, []).append(record)
        order = [*(title for title in found if title not in MORE), *MORE]
        yield from ((title, found[title]) for title in order if title in found)
        rest = "This page; --help-all shows every option." if has_more else "This page."
        yield "Help", [("-h, --help", rest)]


def _row(names: str, told: str, width: int) -> list[str]:
    """An option with its help beside it, on as many lines as it takes."""
    left, indent = f"  {names}", " " * _LEFT_COLUMNS
    wrapped = textwrap.wrap(told, max(20, width - _LEFT_COLUMNS)) or [""]
    if len(left) >= _LEFT_COLUMNS:
        return [left, *(indent + line for line in wrapped)]
    return [f"{left:<{_LEFT_COLUMNS}}{wrapped[0]}", *(indent + line for line in wrapped[1:])]


def examples(*lines: str) -> str:
    """Return examples as an epilog."""
    return "\n".join(f"retake-edge {line}" for line in lines)


def show_log() -> None:
    """Write what the library and llama.cpp log to standard error."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(message)s")
