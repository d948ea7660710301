"""The command line: thin edges over the library, one module a command.

Answers and --json go to stdout, everything else to stderr. An error of the user's making ends in
one sentence and the exit code of its class; anything else is a bug and shows itself.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, NoReturn

import typer

import retake_edge
from retake_edge.cli import ask, bench, chat, evaluate, index, plan, report, run, serve, sessions
from retake_edge.cli.doctor import doctor
from retake_edge.cli.help import HelpfulCommand, show_log
from retake_edge.cli.interrupts import EXIT_INTERRUPTED, handle_interrupts, ignore_interrupts
from retake_edge.cli.models import models
from retake_edge.cli.pull import pull
from retake_edge.cli.scene import scene
from retake_edge.cli.streams import (
    EXIT_READER_GONE,
    ReaderGone,
    leave_output,
    prepare_streams,
    tell,
)
from retake_edge.cli.usage import EXIT_USAGE, ClickError, is_help, usage_sentence
from retake_edge.errors import RetakeError

app = typer.Typer(
    help=retake_edge.__doc__,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(cls=HelpfulCommand, epilog=ask.EXAMPLES, short_help="Answer questions about a video")(
    ask.ask
)
app.add_typer(bench.app, name="bench")
app.command(cls=chat.ChatCommand, epilog=chat.EXAMPLES, short_help="Talk about a video")(chat.chat)
app.command(cls=HelpfulCommand, short_help="Check the installation, and what this machine can run")(
    doctor
)
app.command(
    "eval",
    cls=HelpfulCommand,
    epilog=evaluate.EXAMPLES,
    short_help="Score answers to a benchmark, or to your own questions",
)(evaluate.evaluate)
app.command(cls=HelpfulCommand, epilog=index.EXAMPLES, short_help="Read videos now, to ask later")(
    index.index
)
app.command(cls=HelpfulCommand, short_help="Compare the models on this machine")(models)
app.command(
    cls=HelpfulCommand, epilog=plan.EXAMPLES, short_help="Say what a run needs in memory and time"
)(plan.plan)
app.command(cls=HelpfulCommand, short_help="Download a model")(pull)
app.command(
    cls=run.RunCommand, epilog=run.EXAMPLES, short_help="Answer questions about many videos"
)(run.run)
app.add_typer(sessions.app, name="sessions")
app.command(
    cls=HelpfulCommand,
    epilog=report.EXAMPLES,
    short_help="Write a page about a video and its answers",
)(report.report)
app.command(
    cls=HelpfulCommand, epilog=serve.EXAMPLES, short_help="Answer over HTTP, as OpenAI's API does"
)(serve.serve)
app.command(cls=HelpfulCommand, short_help="Render a synthetic video to try things with")(scene)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"retake-edge {retake_edge.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show llama.cpp's log on stderr.")
    ] = False,
) -> None:
    warnings.showwarning = _show_warning
    if verbose:
        show_log()


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    tell(f"warning: {message}")


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    handle_interrupts()
    try:
        prepare_streams()
        try:
            code = app(standalone_mode=False)
        finally:
            sys.stdout.flush()
        sys.exit(code or 0)
    except ClickError as error:
        leave_output()
        message = str(error) if is_help(error) else f"error: {usage_sentence(error)}"
        tell(message)
        sys.exit(EXIT_USAGE)
    except RetakeError as error:
        leave_output()
        tell(f"error: {error}")
        sys.exit(error.exit_code)
    except ReaderGone:
        leave_output()
        sys.exit(EXIT_READER_GONE)
    except (KeyboardInterrupt, typer.Abort):
        ignore_interrupts()
        sys.exit(EXIT_INTERRUPTED)
