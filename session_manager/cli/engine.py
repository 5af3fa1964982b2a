"""The command ``engine``: a container engine on a machine that has none."""

from __future__ import annotations

from ..host import ensure_engine, stop_engine
from ..outputs import strip_escapes
from ..settings import Settings


def start(settings: Settings) -> int:
    """Make sure that an engine answers, with a line for each step.

    :raises SandboxError: none answers and none could be started.
    """
    print(f"The engine at {ensure_engine(say, settings.docker_host)} answers.")
    return 0


def stop() -> int:
    """Stop the engine that :func:`start` started, and no other.

    :raises EngineError: it did not stop.
    """
    if stop_engine(say):
        print("The engine was stopped.")
    else:
        print("Nothing to stop: no engine runs here that `docker-interpreter engine start` started.")
    return 0


def say(line: str) -> None:
    """A line of progress."""
    print(strip_escapes(line), flush=True)
