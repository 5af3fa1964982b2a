"""Where a SIGINT may end what runs: in the code of a cell, and nowhere in what IPython and ipykernel do around it.

Left to themselves they raise KeyboardInterrupt wherever the main thread happens to be. In between statements, or while
the reply is made, that loses the reply; and a manager that interrupts twice, by message and then by signal, can have
its message carried out as late as that. A cell with a top-level ``await`` they do not interrupt at all, as the callback
that should cancel it does not wake the event loop (https://github.com/ipython/ipykernel/issues/881).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any

from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.events import EventManager
from IPython.core.interactiveshell import available_events

_of_a_cell: ContextVar[bool] = ContextVar("of_a_cell", default=False)
"""Whether this is the code of a cell, or a task or callback that it has started: they inherit it."""


class Interrupts:
    """The handler of SIGINT while a cell runs, unless its code sets another.

    It looks at what it interrupts, rather than at a state that would be set and taken back: that can be interrupted.
    """

    def __init__(self) -> None:
        self._waits = False
        self._task: asyncio.Future[Any] | None = None
        self._dispatcher: asyncio.Task[Any] | None = None
        self._process = os.getpid()

    def install(self) -> Any:
        """For the cell that comes. The handler before. Raises ValueError in a subshell, which no signal reaches."""
        self._waits = False
        return signal.signal(signal.SIGINT, self._on_signal)

    @contextlib.contextmanager
    def of_cell(self) -> Iterator[None]:
        """Around all of a cell, reply and all."""
        if threading.current_thread() is threading.main_thread():
            self._dispatcher = asyncio.current_task()
        token = _of_a_cell.set(False)
        try:
            yield
        finally:
            _of_a_cell.reset(token)

    @contextlib.contextmanager
    def of_task(self, task: asyncio.Future[Any]) -> Iterator[None]:
        """While ``task`` runs the cell, step by step in the event loop."""
        self._task = task
        try:
            yield
        finally:
            self._task = None

    def raise_waiting(self) -> None:
        """Called as code of a cell begins. Raises KeyboardInterrupt for a signal that came just before."""
        _of_a_cell.set(True)
        if self._waits:
            self._waits = False
            raise KeyboardInterrupt

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process or _may_be_interrupted(frame):  # what a cell has forked is its own
            raise KeyboardInterrupt
        if self._task is None:
            self._waits = True
            return
        # from the handler of a signal, only this wakes a loop that waits for something
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        if _of_a_cell.get() and asyncio.current_task() not in (self._task, self._dispatcher):
            # a task that a cell has started is in the way; KeyboardInterrupt in there would end the kernel's loop
            raise asyncio.CancelledError


class InterruptibleEvents(EventManager):
    """IPython's callbacks before and after a cell, such as the one that draws plots: they may be interrupted too."""

    def trigger(self, event: str, *args: Any, **kwargs: Any) -> None:
        """Call what is registered for ``event``; what it raises is shown, and ends nothing else."""
        for function in self.callbacks[event][:]:
            try:
                self.call(function, *args, **kwargs)
            except (Exception, KeyboardInterrupt):
                print(f"Error in callback {function} (for {event}):")
                self.shell.showtraceback()

    def call(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """Within this, a signal interrupts."""
        function(*args, **kwargs)


class SandboxShell(ZMQInteractiveShell):  # type: ignore[misc]  # ipykernel has no types for it
    """IPython as it runs in the kernel, where interrupts reach the code of cells alone."""

    def __init__(self, **kwargs: Any) -> None:
        self.interrupts = Interrupts()
        super().__init__(**kwargs)

    def init_events(self) -> None:
        super().init_events()
        registered = self.events.callbacks
        self.events = InterruptibleEvents(self, available_events)
        self.events.callbacks = registered

    async def run_code(self, code_obj: Any, result: Any = None, *, async_: bool = False) -> Any:
        """Called by IPython with each statement of a cell. Within this, a signal interrupts: IPython catches it."""
        self.interrupts.raise_waiting()
        return await super().run_code(code_obj, result, async_=async_)


_INTERRUPTIBLE = (SandboxShell.run_code.__code__, InterruptibleEvents.call.__code__)


def _may_be_interrupted(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _INTERRUPTIBLE:
            return True
        frame = frame.f_back
    return False
