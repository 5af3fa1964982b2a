"""How a command ends: its exit code, and one line on standard error for what went wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import NoReturn

import typer

from ..errors import SandboxError
from ..outputs import strip_escapes

FAILED = 1
SANDBOX_FAILED = 125
CTRL_C = 130
BROKEN_PIPE = 141


class _OneLine(logging.Formatter):
    """``warning: what happened``. What a message quotes may come from a container."""

    def format(self, record: logging.LogRecord) -> str:
        return strip_escapes(f"{record.levelname.lower()}: {super().format(record)}")


def run_to_exit(work: Callable[[], int], *, debug: bool, failed: int = FAILED) -> NoReturn:
    """Do a command's work and exit with the code that it returns; ``failed`` is for errors of this package.

    :raises typer.Exit: always.
    """
    start_logging(debug)
    for stream in (sys.stdout, sys.stderr):
        if callable(reconfigure := getattr(stream, "reconfigure", None)):
            # a terminal that lacks a character must not end the cell that prints it
            reconfigure(errors="replace")
    try:
        code = work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        complain("Interrupted.")
        code = CTRL_C
    except BrokenPipeError:
        # whoever read our output has had enough; Python would complain once more when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except SandboxError as error:
        code = fail(str(error), debug, failed)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = fail(f"{where}{error.strerror or error}.", debug, failed)
    except Exception as error:
        message = f"{type(error).__name__}: {error}. This is a fault of docker-interpreter; --debug shows where."
        code = fail(message, debug, failed)
    raise typer.Exit(code)


def run_async_to_exit(
    work: Callable[[], Coroutine[object, object, int]], *, debug: bool, failed: int = FAILED
) -> NoReturn:
    """:func:`run_to_exit` for work that is a coroutine; the files of commands, which help reads, need no asyncio so."""
    run_to_exit(lambda: asyncio.run(work()), debug=debug, failed=failed)


def fail(message: str, debug: bool, code: int) -> int:
    """Say what went wrong, with the traceback of it where that was asked for."""
    if debug:
        traceback.print_exc()
    complain(f"error: {message}")
    return code


def complain(message: str) -> None:
    """A line on standard error."""
    print(strip_escapes(message), file=sys.stderr, flush=True)


def start_logging(debug: bool) -> None:
    """Warnings as one line each; with ``debug`` this package's log messages too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(name)s: %(message)s" if debug else "%(message)s"))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler])
    if debug:
        logging.getLogger("session_manager").setLevel(logging.DEBUG)
