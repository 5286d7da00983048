"""What all verbs share: --json and --debug, how results leave, how errors end."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from onnxq.errors import BackendError, OnnxqError
from onnxq.report.figures import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C ended."""
_AS_JSON = "onnxq.json"
_DEBUG = "onnxq.debug"
_GIVEN = "onnxq.given"


class Verb(click.Command):
    """A command whose errors end as one message and the exit code of their class, never as a traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            _flag("--json", _AS_JSON, "Print the result as JSON on stdout, and everything else on stderr."),
            _flag("--debug", _DEBUG, "Show the traceback of an error."),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("onnxq: stopped; nothing was written", err=True)
            ctx.exit(INTERRUPTED)
        except MemoryError as error:
            problem = BackendError(
                "out of memory", hint="A smaller --batch-size needs less.", slug="out-of-memory"
            )
            _end(ctx, problem, error)
        except OnnxqError as error:
            _end(ctx, error, error)
        except Exception as error:
            _end(ctx, _bug(error), error)


def give(result: DataclassInstance, *, everything: bool = False) -> None:
    """Hand a result out: tables on stdout, or JSON there and the tables on stderr.

    Args:
        result: Any class of `onnxq.report.results`.
        everything: Whether long tables are printed too.
    """
    from onnxq.report.encode import to_json
    from onnxq.report.terminal import console, show

    meta = click.get_current_context().meta
    show(result, console(sys.stderr if meta[_AS_JSON] else sys.stdout), everything=everything)
    if meta[_AS_JSON]:
        click.echo(to_json(result))
    meta[_GIVEN] = True


def say(sentence: str) -> None:
    """Tell the reader something that is no result."""
    click.echo(printable(sentence), err=True)


def _end(ctx: click.Context, problem: OnnxqError, cause: BaseException) -> None:
    """Show a problem and leave with its exit code. Under --json it is the result too, if there was none."""
    if ctx.meta[_DEBUG]:
        click.echo("".join(traceback.format_exception(cause)), err=True)
    slug = f" [{problem.slug}]" if problem.slug else ""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(_lines(problem.message) + slug, err=True)
    if problem.hint:
        click.echo(_lines(problem.hint), err=True)
    if ctx.meta[_AS_JSON] and _GIVEN not in ctx.meta:
        from onnxq.report.encode import to_json
        from onnxq.report.results import Problem

        kind = type(problem).__name__
        click.echo(to_json(Problem(kind, problem.slug, problem.message, problem.hint, problem.exit_code)))
    ctx.exit(problem.exit_code)


def _bug(error: Exception) -> OnnxqError:
    """An exception that nobody meant to raise, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return OnnxqError(
        f"this is a bug in onnxq: {type(error).__name__}: {error}{place}",
        hint="Please report it with the output of the same command and --debug.",
        slug="bug",
    )


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def _flag(name: str, key: str, told: str) -> click.Option:
    def keep(context: click.Context, _option: click.Parameter, value: bool) -> None:
        context.meta[key] = value

    return click.Option([name], is_flag=True, expose_value=False, is_eager=True, callback=keep, help=told)
