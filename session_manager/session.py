"""A session: what a chat holds. One container, one kernel at a time, one workspace, cells one after another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .attachment import Attachment
from .cell_run import CellRun
from .changed_files import from_door
from .container import Starter
from .engine.base import ExecStream
from .errors import ContainerGone, LinkError, SandboxError, SettingsError
from .execution import Execution
from .frames import KernelState, words_of
from .journal import Journal, read_session_journal
from .kernel import Completions, OnOutput
from .link import Link
from .missed import LONGEST_ID
from .outputs import Output
from .owned_tasks import OwnedTasks
from .protocol import as_seconds
from .registry import SessionName, remove_workspace
from .variables import SavedVariables, Variable, as_size, saved_from, variables_from
from .workspace import WorkspaceFiles

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT: Final = -1.0
NO_REPLY: Final = ("killed", "died", "out_of_memory")
LOOK_SECONDS: Final = 10.0
"""For a look at the files that a cell left whose kernel is gone."""
SAVE_GRACE = 10.0
"""Seconds beyond its own limit that saving variables may take to answer."""


@dataclass(eq=False)
class _Request:
    """One call of execute, waiting or running."""

    code: str
    timeout: float | None
    on_output: OnOutput | None
    asked_by: str | None
    stop: bool = False
    callback_error: Exception | None = None

    def show(self, output: Output) -> None:
        """Hand an output to the caller, as long as it is there and its callback works."""
        if self.on_output is not None:
            try:
                self.on_output(output)
            except Exception as error:  # the caller's own code: it gets its exception back
                self.on_output, self.callback_error, self.stop = None, error, True


class Session:
    """Runs cells in one session. Made by :meth:`SessionManager.session`, not by hand.

    Any number of tasks may call it; their cells run one after another, in order. Belongs to the event loop it was
    made in.
    """

    def __init__(
        self,
        name: SessionName,
        starter: Starter,
        *,
        kept: bool,
        on_close: Callable[[], object],
    ) -> None:
        self._name = name
        self._engine = starter.engine
        self._settings = starter.settings
        self._kept = kept
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._attachment = Attachment(name, starter, kept=kept, wake=self._wake, on_change=self._link_changed)
        self._told = False
        self._running: _Request | None = None
        self._running_since = 0.0
        self._tasks = OwnedTasks(name.key)

    @property
    def key(self) -> str:
        """The session's key."""
        return self._name.key

    @property
    def owner(self) -> str:
        """Whose session it is; "" where nobody said."""
        return self._name.owner

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

    @property
    def files(self) -> WorkspaceFiles:
        """The files in its workspace, in and out; also while a cell runs. Starts it where it does not run."""
        return WorkspaceFiles(self._open_files, self._settings.limits, self._settings.container)

    # -- what callers do --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make sure that a kernel is ready. :meth:`execute` does so too; this is for doing it ahead of need.

        :raises SandboxError: as :meth:`execute`.
        """
        await self._tasks.run(self._start())

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        on_output: OnOutput | None = None,
        asked_by: str | None = None,
    ) -> Execution:
        """Run a cell and wait for its end.

        ``timeout``: seconds it may run before it is interrupted, then killed; None for no limit; without it, the
        settings' limit. ``on_output`` is called in the event loop with each output as it comes (streams in chunks).
        ``asked_by``: who wants it run, for the journal; up to 200 characters of it are kept.

        What the code does is in the result's ``status``. Cancelling the call stops the cell in the same steps as a
        timeout does; a call that still waits for its turn leaves the queue.

        :raises EngineError: the container can't be had: no engine, no image.
        :raises KernelStartFailed: no kernel came up in it.
        :raises SessionClosed: the session was closed.
        :raises Exception: whatever ``on_output`` raised; the cell is stopped then.
        """
        limits = self._settings.limits
        limit = limits.timeout if timeout == DEFAULT_TIMEOUT else timeout
        if limits.longest_cell is not None:
            limit = limits.longest_cell if limit is None else min(limit, limits.longest_cell)
        request = _Request(code, limit, on_output, asked_by)
        try:
            result = await self._tasks.run(self._run(request), lambda: request.stop)
        except asyncio.CancelledError:
            request.on_output = None
            self._stop(request)
            raise
        if request.callback_error is not None:
            raise request.callback_error
        return result

    async def follow(self, on_output: OnOutput | None = None) -> Execution | None:
        """The cell that runs in the session, whoever started it, to its end; where none runs, the last that ended.

        Its output so far comes first, as much as ``limits.replay_bytes`` of it; ``output_incomplete`` says whether the
        beginning is missing. So a program that takes over from one that was killed loses nothing of what it left
        running. None where no cell has run since Python started. No time limit of this program's ends the cell, and
        cancelling the call leaves it running; :meth:`interrupt` stops it.

        :raises SandboxError: as :meth:`execute`.
        """
        return await self._tasks.run(self._follow(on_output))

    async def running(self) -> float | None:
        """For how many seconds the cell that runs now has run, in whatever program; None where none runs.

        :raises SandboxError: as :meth:`execute`.
        """
        running = await self._running_cell()
        return None if running is None else running[1]

    async def memory(self) -> int | None:
        """Bytes that its processes use now, without the page cache; also while a cell runs.

        None where that can't be learnt. Nothing is started for it: who looks on does not bring a session back.
        """
        if not self._attachment.is_attached:
            return None
        try:
            status = await self._attachment.link.request("status")
        except LinkError as error:
            logger.debug("no memory of %s: %s", self.key, error)
            return None
        return as_size(status.get("memory"))

    async def keep_for(self, idle_timeout: float) -> None:
        """Have it put away after so many seconds without a cell, in place of ``limits.idle_timeout``.

        That holds for as long as its container lives; where it was put away, say it again.

        :raises SettingsError: that is no time.
        :raises SandboxError: as :meth:`execute`.
        """
        if not 0 < idle_timeout < float("inf"):
            raise SettingsError(f"A session can't be kept for {idle_timeout} s.", "Say a number above 0.")
        await self._beside()
        margin = self._settings.limits.idle_margin
        await self._attachment.link.request("keep", idle_timeout=idle_timeout, margin=margin)

    async def interrupt(self) -> bool:
        """Stop the cell that runs in the session now; whether there was one.

        One of this program's is stopped in the steps of a timeout, and its caller gets what it did until then. One that
        another program started is interrupted, once: what follows is that program's affair.

        :raises SandboxError: as :meth:`execute`.
        """
        if self._running is not None:
            self._stop(self._running)
            return True
        running = await self._running_cell()
        if running is None:
            return False
        reply = await self._attachment.link.request("interrupt", cell=running[0])
        return reply.get("interrupted") is True

    async def restart(self) -> None:
        """A fresh Python in the same container: variables go, files stay. A running cell ends as ``died``.

        :raises SandboxError: as :meth:`execute`.
        """
        await self._tasks.run(self._restart())

    async def save_variables(self) -> SavedVariables:
        """Write the session's variables into its workspace, from where the next container of this key restores them.

        Waits for the session's turn, as a cell does. What can't be saved is named in the result, with the reason.

        :raises SandboxError: as :meth:`execute`; also where Python does not manage it in ``saving.timeout`` seconds.
        """
        return await self._tasks.run(self._save_variables("asked for", None))

    async def save_and_hold(self, reason: str, work: Callable[[], Awaitable[None]]) -> SavedVariables:
        """Save variables, and do ``work`` before the next cell, of any program, may run: see
        :meth:`SessionManager.fork`.

        :raises SandboxError: as :meth:`save_variables`.
        """
        return await self._tasks.run(self._save_variables(reason, work))

    async def variables(self, timeout: float = 5.0) -> Sequence[Variable]:
        """The session's variables: name, type, size, shape and a short text of each; also while a cell runs.

        No code of the user's runs for it without a limit of time.

        :raises TimeoutError: native code holds the interpreter for longer than ``timeout`` seconds.
        :raises SandboxError: as :meth:`execute`.
        """
        await self._beside()
        content = await self._attachment.kernel.ask_beside("variables_request", {"seconds": timeout / 4}, timeout)
        return variables_from(content)

    async def complete(self, code: str, cursor: int | None = None, timeout: float = 5.0) -> Completions:
        """Completions of ``code`` at ``cursor`` (default: its end), also while a cell runs.

        :raises TimeoutError: as :meth:`variables`.
        """
        await self._beside()
        return await self._attachment.kernel.complete(code, len(code) if cursor is None else cursor, timeout)

    async def inspect(self, name: str, timeout: float = 5.0) -> str:
        """What Python knows of a name: its type, signature and documentation, as text; also while a cell runs.

        :raises TimeoutError: as :meth:`variables`.
        """
        await self._beside()
        return await self._attachment.kernel.inspect(name, len(name), timeout)

    async def journal(self) -> Journal:
        """The cells that ran in the session, in this container and those before it; also while a cell runs.

        :raises FileError: it can't be read.
        :raises SandboxError: as :meth:`execute`.
        """
        return await read_session_journal(self.files, self._settings.limits)

    async def detach(self) -> None:
        """Let go of the session; it lives on, and whoever comes next with its key finds it."""
        await self._close(hurry=False)

    async def stop(self, *, purge: bool = False) -> None:
        """End the session: the container goes. The workspace stays for the next with this key, unless ``purge``."""
        await self._close(hurry=True)
        await self._engine.remove(self._name.container)
        if purge or not self._kept:
            await remove_workspace(self._engine, self._name.namespace, self._name.container)

    @property
    def link(self) -> Link | None:
        """The link into its container, where there is one that works."""
        return self._attachment.link if self._attachment.is_attached else None

    # -- waking, starting -------------------------------------------------------------------------------------

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

    async def _start(self) -> None:
        async with self._lock:
            await self._attachment.make_ready()

    async def _restart(self) -> None:
        await self._attachment.restart()
        async with self._lock:
            await self._attachment.make_ready()

    # -- a cell -----------------------------------------------------------------------------------------------

    async def _run(self, request: _Request) -> Execution:
        async with self._lock:
            attachment = self._attachment
            await attachment.take_turn(lambda: request.stop)
            link = attachment.link
            run = CellRun(attachment.container, attachment.kernel, self._settings, self._wake, lambda: request.stop)
            self._running, self._running_since = request, time.monotonic()
            try:
                notice = await attachment.take_notice()
                result = await run.run(request.code, request.timeout, request.show, notice, request.asked_by)
            finally:
                self._running = None
                link.end_turn()
                if run.container_lost:
                    await attachment.forget()
            if result.status in NO_REPLY:
                result = await self._with_files(result, run.death)
            if not result.variables_kept:
                attachment.loss_was_told()
                if attachment.is_attached and link.kernel.state == "dead":
                    self._tasks.spawn(link.request("restart"))  # ready sooner for the next cell
            return result

    async def _with_files(self, result: Execution, death: KernelState | None) -> Execution:
        """The execution of a cell whose kernel, which died this death, could not say which files it left."""
        if death is None or death.cell_began is None:
            return result

        async def open_door(*, write: bool) -> ExecStream:
            # not by way of start(): that waits for the lock, which this cell's call has
            return await self._engine.open_files(self._name.container)

        files = WorkspaceFiles(open_door, self._settings.limits, self._settings.container)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                changed = from_door(await files.changed(death.cell_began))
        except (SandboxError, OSError) as error:  # no time, no engine, no room for another process
            logger.info("which files the cell left can't be had: %s", error or "no answer")
            return result
        return replace(result, files=changed.files, files_complete=changed.complete)

    async def _follow(self, on_output: OnOutput | None) -> Execution | None:
        async with self._lock:
            attachment = self._attachment
            await attachment.make_ready()
            status = await attachment.link.request("status")
            running, last = status.get("running"), status.get("last_cell")
            cell = running if isinstance(running, dict) else last if isinstance(last, dict) else {}
            msg_id, seconds = cell.get("msg_id"), cell.get("seconds")
            if not isinstance(msg_id, str):
                return None
            since = as_seconds(seconds)
            run = CellRun(attachment.container, attachment.kernel, self._settings, self._wake, lambda: False)
            try:
                return await run.follow(msg_id, since, on_output, await attachment.take_notice())
            finally:
                if run.container_lost:
                    await attachment.forget()

    async def _running_cell(self) -> tuple[str, float] | None:
        """The id of the cell that runs, and for how many seconds it has."""
        await self._beside()
        running = (await self._attachment.link.request("status")).get("running")
        if not isinstance(running, dict):
            return None
        msg_id, seconds = running.get("msg_id"), running.get("seconds")
        return words_of(msg_id, LONGEST_ID), as_seconds(seconds)

    async def _beside(self) -> None:
        """A kernel that can be asked beside the cell that runs in it."""
        if self._tasks.closed or not self._attachment.is_current:
            await self.start()

    async def _open_files(self, *, write: bool) -> ExecStream:
        """A file door in the session's container, for reading or writing."""
        await self._beside()
        try:
            return await self._engine.open_files(self._name.container)
        except ContainerGone:  # it was put away, or removed, a moment ago
            await self.start()
            return await self._engine.open_files(self._name.container)

    async def _save_variables(self, reason: str, work: Callable[[], Awaitable[None]] | None) -> SavedVariables:
        saving = self._settings.saving
        limits: dict[str, object] = {"seconds": saving.timeout, "max_bytes": saving.max_bytes}
        async with self._lock:
            await self._attachment.take_turn()
            link = self._attachment.link
            try:
                reply = await link.request("save", saving.timeout + SAVE_GRACE, reason=reason, **limits)
                saved = saved_from(reply.get("report"))
                if work is not None:
                    await link.request("hold", on=True)
                    await work()
                    await link.request("hold", on=False)
            finally:
                link.end_turn()
        return saved

    async def _close(self, *, hurry: bool) -> None:
        """Let go. Cells that are being stopped get the time that takes, unless ``hurry``; others are left to run."""
        if not self._tasks.closed:
            self._tasks.closed = True
            self._on_close()
        await self._tasks.close(hurry=hurry)
        await self._attachment.forget()
