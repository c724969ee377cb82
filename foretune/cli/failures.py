"""Errors as a person reads them, and the exit code of each.

0  done
1  the experiment, or the operation, failed
2  wrong usage or input: an option, a file, a value the service refuses
3  the service cannot be reached, or a part of it is away
4  there is no such thing, or its state does not allow that
5  the API key is missing, wrong, or may not do that
130  interrupted
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec, TypeVar

import typer

from foretune.cli.terminal import complain
from foretune.errors import (
    Conflict,
    ConnectionFailed,
    Forbidden,
    ForetuneError,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class ExitCode(IntEnum):
    """What the shell gets; see the module's docstring."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    KEY = 5
    INTERRUPTED = 130


def exit_code(error: ForetuneError) -> ExitCode:
    """The exit code that an error leads to."""
    match error:
        case InvalidRequest() | TooLarge():
            return ExitCode.USAGE
        case ConnectionFailed() | Unavailable() | TooManyRequests():
            return ExitCode.UNREACHABLE
        case NotFound() | Conflict():
            return ExitCode.REFUSED
        case Unauthenticated() | Forbidden():
            return ExitCode.KEY
    return ExitCode.FAILED


def guarded(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A command whose expected errors become one message on stderr and an exit code, never a traceback."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except ForetuneError as error:
            code = exit_code(error)
            if kwargs.get("as_json"):
                problem = {"error": {"code": error.code, "message": error.message, "exit_code": int(code)}}
                typer.echo(json.dumps(problem), err=True)
            else:
                complain(error.message, error.code)
            raise typer.Exit(code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # `foretune trials last | head`: the reader has seen enough. What is still buffered goes nowhere, quietly.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.OK) from None

    return run
