"""A session: what a chat holds. One container, one kernel at a time, one workspace, cells one after another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .cell_run import CellRun
from .container import Container, SessionName
from .engine.base import Engine
from .errors import ContainerGone, KernelStartFailed, SessionClosed
from .execution import Execution, cause
from .kernel import Completions, Kernel, OnOutput
from .link import Link
from .link_thread import LinkThread
from .outputs import Output
from .settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_TIMEOUT: Final = -1.0
START_ATTEMPTS = 3


@dataclass(eq=False)
class _Request:
    """One call of execute, waiting or running."""

    code: str
    timeout: float | None
    on_output: OnOutput | None
    stop: bool = False
    callback_error: Exception | None = None

    def show(self, output: Output) -> None:
        """Hand an output to the caller, as long as it is there and its callback works."""
        if self.on_output is not None:
            try:
                self.on_output(output)
            except Exception as error:  # the caller's own code: it gets its exception back
                self.on_output, self.callback_error, self.stop = None, error, True


class _Stopped(Exception):  # noqa: N818 - not an error
    """The request was stopped before its cell was sent."""


class Session:
    """Runs cells in one session. Made by :meth:`SessionManager.session`, not by hand.

    Any number of tasks may call it; their cells run one after another, in order. Belongs to the event loop it was
    made in.
    """

    def __init__(
        self,
        name: SessionName,
        engine: Engine,
        thread: LinkThread,
        settings: Settings,
        image: Callable[[], Awaitable[str]],
        *,
        kept: bool,
        on_close: Callable[[], object],
    ) -> None:
        self._name = name
        self._engine = engine
        self._thread = thread
        self._settings = settings
        self._image = image
        self._kept = kept
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._container: Container | None = None
        self._kernel: Kernel | None = None
        self._container_serial = 0
        self._connected_to: tuple[int, int] | None = None
        """Which container of this session, and which kernel in it, the kernel client speaks to."""
        self._kernel_generation: tuple[int, int] | None = None
        """The kernel that holds what callers believe to have; None once they were told that it is lost."""
        self._told = False
        self._notice: str | None = None
        self._running: _Request | None = None
        self._running_since = 0.0
        self._tasks: dict[asyncio.Task[Any], _Request | None] = {}
        self._closed = False

    @property
    def key(self) -> str:
        """The session's key."""
        return self._name.key

    @property
    def kept(self) -> bool:
        """Whether it lives on when its manager lets go; False for throw-away sessions."""
        return self._kept

    @property
    def container_name(self) -> str:
        """The engine's name of the container."""
        return self._name.container

    @property
    def running_for(self) -> float | None:
        """Seconds that this program's current cell has run; None where none runs."""
        return time.monotonic() - self._running_since if self._running is not None else None

    # -- what callers do --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make sure that a kernel is ready. :meth:`execute` does so too; this is for doing it ahead of need.

        :raises SandboxError: as :meth:`execute`.
        """
        await self._own(self._start())

    async def execute(
        self, code: str, *, timeout: float | None = DEFAULT_TIMEOUT, on_output: OnOutput | None = None
    ) -> Execution:
        """Run a cell and wait for its end.

        ``timeout``: seconds it may run before it is interrupted, then killed; None for no limit; without it, the
        settings' limit. ``on_output`` is called in the event loop with each output as it comes (streams in chunks).

        What the code does is in the result's ``status``. Cancelling the call stops the cell in the same steps as a
        timeout does; a call that still waits for its turn leaves the queue.

        :raises EngineError: the container can't be had: no engine, no image.
        :raises KernelStartFailed: no kernel came up in it.
        :raises SessionClosed: the session was closed.
        :raises Exception: whatever ``on_output`` raised; the cell is stopped then.
        """
        limit = self._settings.limits.timeout if timeout == DEFAULT_TIMEOUT else timeout
        request = _Request(code, limit, on_output)
        try:
            result = await self._own(self._run(request), request)
        except asyncio.CancelledError:
            request.on_output = None
            self._stop(request)
            raise
        if request.callback_error is not None:
            raise request.callback_error
        return result

    async def interrupt(self) -> bool:
        """Stop the cell that this program runs in the session now, in the steps of a timeout; whether there was one."""
        if self._running is None:
            return False
        self._stop(self._running)
        return True

    async def restart(self) -> None:
        """A fresh Python in the same container: variables go, files stay. A running cell ends as ``died``.

        :raises SandboxError: as :meth:`execute`.
        """
        await self._own(self._restart())

    async def complete(self, code: str, cursor: int | None = None) -> Completions:
        """Completions of ``code`` at ``cursor`` (default: its end).

        :raises TimeoutError: the kernel is busy.
        """
        await self.start()
        return await self._live_kernel().complete(code, len(code) if cursor is None else cursor)

    async def inspect(self, name: str) -> str:
        """What Python knows of a name: its type, signature and documentation, as text.

        :raises TimeoutError: the kernel is busy.
        """
        await self.start()
        return await self._live_kernel().inspect(name, len(name))

    async def detach(self) -> None:
        """Let go of the session; it lives on, and whoever comes next with its key finds it."""
        await self._close(hurry=False)

    async def stop(self, *, purge: bool = False) -> None:
        """End the session: the container goes. The workspace stays for the next with this key, unless ``purge``."""
        await self._close(hurry=True)
        await self._engine.remove(self._name.container)
        if purge or not self._kept:
            await self._engine.remove_volume(self._name.volume)

    # -- tasks ------------------------------------------------------------------------------------------------

    async def _own(self, work: Coroutine[object, object, T], request: _Request | None = None) -> T:
        """Run work in a task of this session's: a cancelled caller goes at once, the work comes to its own end."""
        if self._closed:
            work.close()
            raise SessionClosed(f"The session {self.key!r} was closed.", "Ask the manager for it again.")
        task = self._loop.create_task(work)
        self._tasks[task] = request
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise SessionClosed(f"The session {self.key!r} was closed while this call waited.") from None
            raise

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("session %s: %r", self.key, error)  # its caller has it, where there still is one

    def _stop(self, request: _Request) -> None:
        request.stop = True
        self._wake.set()

    def _link_changed(self) -> None:
        """In the link's thread: tell the event loop, once until it has looked."""
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever would care
                self._loop.call_soon_threadsafe(self._on_link_change)

    def _on_link_change(self) -> None:
        self._told = False
        self._wake.set()

    def _spawn(self, work: Coroutine[object, object, object]) -> None:
        task = self._loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    # -- a cell -----------------------------------------------------------------------------------------------

    async def _run(self, request: _Request) -> Execution:
        async with self._lock:
            if request.stop:
                raise _Stopped
            await self._make_ready()
            container = self._live_container()
            link = container.link
            await self._take_turn(link, request)
            if request.stop:
                link.end_turn()
                raise _Stopped
            run = CellRun(container, self._live_kernel(), self._settings, self._wake, lambda: request.stop)
            notice, self._notice = self._notice, None
            self._running, self._running_since = request, time.monotonic()
            try:
                result = await run.run(request.code, request.timeout, request.show, notice)
            finally:
                self._running = None
                link.end_turn()
                if run.container_lost:
                    await self._forget_container()
            if not result.variables_kept:
                self._kernel_generation = None  # told: the next kernel comes without a notice
                if self._container is not None and self._container.link.kernel.state == "dead":
                    self._spawn(self._container.link.request("restart"))  # ready sooner for the next cell
            return result

    async def _take_turn(self, link: Link, request: _Request) -> None:
        """Wait until no other program's cell runs in this session, or the request is stopped."""
        if link.resume_turn():
            return
        asking = self._loop.create_task(link.acquire_turn())
        try:
            while not asking.done() and not request.stop:
                self._wake.clear()
                waking = self._loop.create_task(self._wake.wait())
                await asyncio.wait((asking, waking), return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
            if not asking.done():
                raise _Stopped
            await asking
        finally:
            asking.cancel()

    # -- the container and its kernel -------------------------------------------------------------------------

    async def _start(self) -> None:
        async with self._lock:
            await self._make_ready()

    async def _restart(self) -> None:
        if self._container is not None and self._container.link.broken is None:
            await self._container.link.request("restart")
            self._kernel_generation = None
        async with self._lock:
            await self._make_ready()

    async def _make_ready(self) -> None:
        """A container, a link that works, and a kernel that answers; whatever of it is missing is made."""
        for _ in range(START_ATTEMPTS):
            if self._container is None:
                await self._open_container()
            container = self._live_container()
            link = container.link
            was_broken = link.broken is not None
            if was_broken:
                try:
                    await container.heal()
                except ContainerGone:
                    await self._forget_container()
                    continue
            if not await self._wait_for_kernel():
                continue  # the link broke meanwhile
            generation = (self._container_serial, link.kernel.generation)
            if self._kernel is not None and self._connected_to == generation:
                if was_broken:
                    await self._kernel.resubscribe(self._settings.limits.start_timeout)
                return
            await self._connect(generation)
            return
        raise KernelStartFailed(
            f"The session {self.key!r} did not come up in {START_ATTEMPTS} attempts.",
            "`docker-interpreter doctor` looks for the reason.",
        )

    async def _open_container(self) -> None:
        container = Container(
            self._engine,
            self._thread,
            self._name,
            self._settings,
            await self._image(),
            kept=self._kept,
            on_change=self._link_changed,
        )
        try:
            await container.open()
        except BaseException:
            await container.link.close()
            raise
        self._container = container
        self._container_serial += 1

    async def _forget_container(self) -> None:
        if self._kernel is not None:
            await self._kernel.close()
            self._kernel = None
        if self._container is not None:
            await self._container.link.close()
            self._container = None

    async def _wait_for_kernel(self) -> bool:
        """Until the supervisor says that its kernel is ready; starts one where there is none. False: the link broke.

        :raises KernelStartFailed: kernels end as they start, or none is ready in time.
        """
        link = self._live_container().link
        deadline = time.monotonic() + self._settings.limits.start_timeout
        restarted: int | None = None
        while True:
            self._wake.clear()
            state = link.kernel
            if link.broken is not None:
                return False
            if state.state == "ready":
                return True
            if state.state == "dead":
                if restarted is not None and state.generation > restarted:
                    raise KernelStartFailed(
                        f"Python ended as it started ({cause(state)}), saying: {state.last_words.strip()[-500:]}",
                        "`docker-interpreter doctor` looks for the reason.",
                    )
                if restarted is None:
                    restarted = state.generation
                    await link.request("restart")
            try:
                await asyncio.wait_for(self._wake.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise KernelStartFailed(
                    f"Python was not ready after {self._settings.limits.start_timeout:g} s.",
                    "The machine may be overloaded; `limits.start_timeout` gives it longer.",
                ) from None

    async def _connect(self, generation: tuple[int, int]) -> None:
        link = self._live_container().link
        if self._kernel is not None:
            await self._kernel.close()
            self._kernel = None
        kernel = Kernel(link, self._settings.limits, self._wake.set)
        await kernel.connect(self._settings.limits.start_timeout)
        self._kernel = kernel
        self._connected_to = generation
        if self._kernel_generation is not None:
            death = link.last_death
            why = f" ({cause(death)})" if death is not None and self._kernel_generation[0] == generation[0] else ""
            self._notice = (
                f"Python was restarted since the last cell{why}: variables are gone, files in the workspace are kept."
            )
        self._kernel_generation = generation

    def _live_container(self) -> Container:
        if self._container is None:
            raise KernelStartFailed(f"The session {self.key!r} has no container.")
        return self._container

    def _live_kernel(self) -> Kernel:
        if self._kernel is None:
            raise KernelStartFailed(f"The session {self.key!r} has no kernel.")
        return self._kernel

    async def _close(self, *, hurry: bool) -> None:
        """Let go. Cells that are being stopped get the time that takes, unless ``hurry``; others are left to run."""
        if not self._closed:
            self._closed = True
            self._on_close()
        for task, request in list(self._tasks.items()):
            if hurry or request is None or not request.stop:
                task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._forget_container()
