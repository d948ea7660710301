"""A command line that cannot be understood: told as every other mistake is, in one sentence."""

from __future__ import annotations

from typing import Any

import typer

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer may bring a click of its own
ClickError: type[Exception] = typer.BadParameter.__mro__[2]
EXIT_USAGE = 2


def usage_sentence(error: Any) -> str:
    """Return what is wrong with the command line, and how to go on."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "retake-edge"
    message = " ".join(error.format_message().split())
    if message.startswith("Got unexpected extra argument") and path.endswith(" ask"):
        message = f"{message.rstrip('.')}; put the question in quotes"
    elif message.startswith("Missing argument") and path.endswith((" ask", " chat", " plan")):
        message = "There is no video; give its file"
    return f"{message.rstrip('.')}. `{path} --help` shows how it is used."


def is_help(error: Any) -> bool:
    """Return whether it is no mistake, but a call without arguments that shows the help."""
    return type(error).__name__ == "NoArgsIsHelpError"
