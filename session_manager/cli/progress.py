"""What a command that takes long says meanwhile, on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from ..errors import SandboxError
from ..outputs import strip_escapes


class Progress:
    """Call it with a line for each step, from any thread. A context manager.

    On a terminal one line shows the latest step, and goes at the end. Elsewhere each step is a line; those
    that begin with a space, the details of a step, are left out. With ``every_line`` every line is printed.
    """

    def __init__(self, *, every_line: bool = False) -> None:
        self._every_line = every_line
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._aborted = False

    def __call__(self, line: str) -> None:
        """Say what happens now.

        :raises SandboxError: it is no longer wanted.
        """
        if self._aborted:
            raise SandboxError("Stopped.")
        line = strip_escapes(line)
        if self._console.is_terminal and not self._every_line:
            step = Text(line.strip(), overflow="ellipsis", no_wrap=True)
            if self._status is None:
                self._status = self._console.status(step)
                self._status.start()
            else:
                self._status.update(step)
        elif self._every_line or not line.startswith(" "):
            print(line, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Take the line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        # a thread that builds an image can't be cancelled: it gives up at its next step
        self._aborted = kind is not None
