"""One cell, from its sending to its end, whatever comes between: time limits, broken links, dead kernels.

The ladder: interrupt over the kernel's control channel; after a grace time SIGINT to the kernel's process group, from
the supervisor; after another, SIGKILL to all the kernel started, and a new kernel in the same container; where the
supervisor does not answer, the container goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from enum import Enum, auto

from . import execution
from .changed_files import from_reply
from .container import Container
from .errors import ContainerGone, SandboxError, SupervisorGone
from .execution import Ending, Execution
from .frames import KernelState
from .kernel import Kernel, OnOutput
from .outputs import Error
from .settings import Settings

logger = logging.getLogger(__name__)

IDLE_AFTER_REPLY = 2.0
"""Seconds without a message to wait for the idle status once the reply is in; then the output counts as incomplete."""
LONGEST_TAIL = 60.0
"""Seconds after the reply in which output may still come: a thread that prints for ever, with idle lost, ends there."""
LOOK_FOR_REPLY = 1.0
"""Seconds between looks at the supervisor's record, where a reply may have been lost."""
LOOK_ANYWAY = 10.0
"""Seconds between such looks where nothing hints at a loss: a reply over the message limit goes without a trace."""
CATCH_UP = 5.0
"""Seconds at most to get what was published while the link was down, or to make sure of the next cell's output."""
DRAIN = 0.5
"""Seconds at most to collect what a dead kernel still had under way."""
QUIET = 0.05
RESTART_TIMEOUT = 10.0
STANDBY_MARGIN = 5.0
"""Seconds beyond the last grace time for which the next kernel's Python is kept, should this one have to be killed."""
MOST_HEALS = 20
"""A link that breaks more often than this in a row is being broken on purpose."""
LASTING = 60.0
"""Seconds after which a link that breaks begins a new row: on a bad line it may, in a cell of a day."""
BROKEN_ON_PURPOSE = "The code in the session kept the manager out of its container, which was removed for it."


class _End(Enum):
    ENDED = auto()
    LATE = auto()
    STOPPED = auto()
    KERNEL_DIED = auto()
    CONTAINER_GONE = auto()
    ENGINE_GONE = auto()


class CellRun:
    """Runs one cell. ``wake`` is set by whatever changes: a message, the link, a request to stop."""

    def __init__(
        self,
        container: Container,
        kernel: Kernel,
        settings: Settings,
        wake: asyncio.Event,
        should_stop: Callable[[], bool],
    ) -> None:
        self._container = container
        self._link = container.link
        self._kernel = kernel
        self._limits = settings.limits
        self._memory_limit = settings.container.mem_limit if settings.engine != "process" else None
        self._wake = wake
        self._should_stop = should_stop
        self._incomplete = False
        self._left_out_before = kernel.left_out
        self._looks_at_once = False
        self._engine_error = ""
        self._removed_for: str | None = None
        self._heals = 0
        self._breaks = 0
        self._healed_at = 0.0
        self._next_look = 0.0
        self._missing_looks = 0
        self._unknown_looks = 0
        self.container_lost = False
        """The container is gone, or was removed here: open it anew before the next cell."""

    @property
    def death(self) -> KernelState | None:
        """How the cell's kernel ended; None where it lives, or another's end is the last that was heard of."""
        death = self._link.last_death
        return death if death is not None and death.generation == self._kernel.generation else None

    async def run(
        self,
        code: str,
        timeout: float | None,
        on_output: OnOutput | None,
        notice: str | None,
        asked_by: str | None = None,
    ) -> Execution:
        """Run ``code`` for at most ``timeout`` seconds, and the ladder's grace times."""
        self._code, self._on_output, self._asked_by = code, on_output, asked_by
        self._cell = self._kernel.execute(code, on_output, asked_by=asked_by)
        begin = time.monotonic()
        return await self._finish(begin, timeout, None if timeout is None else begin + timeout, notice)

    async def follow(self, msg_id: str, seconds: float, on_output: OnOutput | None, notice: str | None) -> Execution:
        """Take over a cell that another program sent ``seconds`` ago, to its end. No time limit of ours ends it."""
        self._code, self._on_output, self._asked_by = "", on_output, None
        self._cell = await self._kernel.follow(msg_id, on_output, CATCH_UP)
        self._incomplete = not self._cell.started  # the beginning is not kept any more
        self._looks_at_once = True  # its reply goes to the program that sent it
        return await self._finish(time.monotonic() - seconds, None, None, notice)

    async def _finish(
        self, begin: float, timeout: float | None, deadline: float | None, notice: str | None
    ) -> Execution:
        self._next_look = time.monotonic() + (0 if self._looks_at_once else LOOK_ANYWAY)
        started_at = time.time() - (time.monotonic() - begin)
        try:
            end = await self._watch(deadline, stoppable=True)
            ending = await self._conclude(end, timeout)
        finally:
            self._kernel.stop_listening(self._cell)
        error = self._cell.error
        if ending is not None:
            status, kept, message = ending.status, ending.variables_kept, ending.message
        elif self._cell.reply == "ok":
            status, kept, message = "ok", True, None
        else:
            status, kept, message = "error", True, None
            error = error or Error("Aborted", "The kernel aborted the cell before it ran.", ())
            message = execution.disk_full(error)
        self._incomplete |= self._kernel.left_out > self._left_out_before
        changed = from_reply(self._cell.reply_metadata)
        self._cell.reply_metadata = {}  # it may be large, and the cell lives as long as its execution
        result = Execution(
            code=self._code or self._cell.code or "",
            status=status,
            error=error,
            duration=time.monotonic() - begin,
            started_at=started_at,
            execution_count=self._cell.execution_count,
            variables_kept=kept,
            output_incomplete=self._incomplete,
            message=message,
            notice=notice,
            warning=execution.too_much(self._cell.workspace_bytes, self._limits.workspace_bytes),
            files=changed.files,
            files_complete=changed.complete,
            cell=self._cell,
            text_chars=self._limits.text_chars,
        )
        if self._incomplete and kept and self._link.broken is None:
            try:
                await self._kernel.catch_up(CATCH_UP)
            except SandboxError as error:
                logger.warning("%s; the next cell's output may be missing", error)
        return result

    async def _conclude(self, end: _End, timeout: float | None) -> Ending | None:
        """What an end means; climbs the ladder where the cell did not end by itself. None: it did."""
        match end:
            case _End.ENDED:
                return None
            case _End.LATE:
                return await self._climb(timeout)
            case _End.STOPPED:
                return await self._climb(None)
            case _End.KERNEL_DIED:
                await self._drain()
                return execution.died(self.death, self._memory_limit)
            case _End.CONTAINER_GONE:
                self.container_lost = True
                self._incomplete = True
                return execution.container_gone(self._removed_for)
            case _End.ENGINE_GONE:
                self.container_lost = True
                self._incomplete = True
                return execution.engine_gone(self._engine_error)

    # -- watching ---------------------------------------------------------------------------------------------

    async def _watch(self, deadline: float | None, *, stoppable: bool) -> _End:
        """Wait until something has to be done about the cell, or nothing more."""
        reply_since: float | None = None
        while True:
            self._wake.clear()
            now = time.monotonic()
            if self._cell.ended:
                return _End.ENDED
            if self._link.broken is not None:
                end = await self._heal()
                if end is not None:
                    return end
                continue
            if self._kernel_is_gone():
                return _End.KERNEL_DIED
            if self._cell.reply is not None:
                # the code has ended, in time: what is under way is output, however much of it
                reply_since = reply_since or now
                quiet_since = max(reply_since, self._kernel.last_message)
                until = min(quiet_since + IDLE_AFTER_REPLY, reply_since + LONGEST_TAIL)
                if now >= until or (stoppable and self._should_stop()):
                    self._incomplete = True
                    return _End.ENDED
            elif stoppable and self._should_stop():
                return _End.STOPPED
            elif deadline is not None and now >= deadline:
                return _End.LATE
            else:
                if self._cell.idle:
                    self._next_look = min(self._next_look, now + LOOK_FOR_REPLY)
                if now >= self._next_look:
                    await self._look_for_reply()
                    continue
                until = self._next_look if deadline is None else min(self._next_look, deadline)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), until - now)

    def _kernel_is_gone(self) -> bool:
        state = self._link.kernel
        return state.generation != self._kernel.generation or state.state == "dead"

    async def _heal(self) -> _End | None:
        """The link broke: attach again, and get what was published meanwhile. The kernel's sockets reconnect by
        themselves, with the same identity."""
        self._heals += 1
        self._breaks = self._breaks + 1 if time.monotonic() - self._healed_at < LASTING else 1
        if self._breaks > MOST_HEALS:
            return await self._remove_for_good("its link broke again and again")
        logger.info("the link of %s broke (%s); attaching again", self._container.spec.name, self._link.broken)
        self._kernel.hold()
        try:
            await self._container.heal()
        except ContainerGone:
            return _End.CONTAINER_GONE
        except SupervisorGone as error:
            return await self._remove_for_good(error)
        except SandboxError as error:
            self._engine_error = str(error)
            return _End.ENGINE_GONE
        self._healed_at = time.monotonic()
        self._next_look = self._healed_at + LOOK_FOR_REPLY
        if self._kernel_is_gone():
            self._incomplete = True
            self._kernel.release()
        else:
            try:
                self._incomplete |= not await self._kernel.catch_up(CATCH_UP)
            except SandboxError as error:
                logger.warning("%s; output of this cell may be missing", error)
                self._incomplete = True
        return None

    async def _remove_for_good(self, why: object) -> _End:
        """Nobody could stop the cell any more, whatever its time limit is."""
        logger.warning("removing %s: %s", self._container.spec.name, why)
        self._removed_for = BROKEN_ON_PURPOSE
        try:
            await self._container.remove()
        except SandboxError as error:
            self._engine_error = str(error)
            return _End.ENGINE_GONE
        return _End.CONTAINER_GONE

    async def _look_for_reply(self) -> None:
        """Ask the supervisor how the last cell ended, in case the message that said so went with a connection."""
        often = self._cell.idle or self._heals or self._looks_at_once
        self._next_look = time.monotonic() + (LOOK_FOR_REPLY if often else LOOK_ANYWAY)
        try:
            status = await self._link.request("status", LOOK_FOR_REPLY)
        except SandboxError as error:
            logger.debug("no status: %s", error)
            return
        last = status.get("last_cell")
        recorded = last.get("msg_id") if isinstance(last, dict) else None
        if self._looks_at_once and recorded is not None and recorded != self._cell.msg_id:
            # another cell has begun since: this one has ended, and what is known of how is in its output
            self._cell.on_reply({"status": "ok" if self._cell.log.error is None else "error"})
        elif status.get("busy") is not False or not isinstance(last, dict) or self._cell.reply is not None:
            self._missing_looks = self._unknown_looks = 0
        elif recorded == self._cell.msg_id:
            self._missing_looks += 1
            self._next_look = time.monotonic() + LOOK_FOR_REPLY
            if self._missing_looks > 1 or self._looks_at_once:  # seen once, it may be on its way
                # after a break its output was caught up with; else something was lost, and nobody knows what
                self._incomplete |= not (self._heals or self._looks_at_once)
                self._cell.on_reply({"status": "ok"} if last.get("ok") is True else {**last, "status": "error"})
        elif self._heals and not self._cell.started:
            self._unknown_looks += 1
            if self._unknown_looks > 1:
                # idle, and never seen: the request went with the link
                self._unknown_looks = 0
                self._kernel.stop_listening(self._cell)
                self._cell = self._kernel.execute(self._code, self._on_output, self._cell.log, self._asked_by)

    async def _drain(self) -> None:
        """Let what a dead kernel sent arrive: until nothing has come for a moment. The next one may speak already."""
        deadline = time.monotonic() + DRAIN
        while time.monotonic() < deadline:
            await asyncio.sleep(QUIET)
            if time.monotonic() - self._kernel.last_of_a_cell > QUIET:
                return

    # -- the ladder -------------------------------------------------------------------------------------------

    async def _climb(self, timeout: float | None) -> Ending | None:
        """Interrupt, again, kill, replace: until the cell has ended. ``timeout`` is the limit it passed, if it did."""
        for step in (self._interrupt, self._signal):
            await step()
            end = await self._watch(time.monotonic() + self._limits.interrupt_grace, stoppable=False)
            if end is _End.ENDED:
                return execution.interrupted(timeout)
            if end is not _End.LATE:
                return await self._conclude(end, timeout)
        try:
            await self._link.request("restart", RESTART_TIMEOUT)
        except SandboxError as error:
            logger.warning("%s; removing the container", error)
            await self._container.remove()
            self.container_lost = True
        await self._drain()
        return execution.killed(timeout)

    async def _interrupt(self) -> None:
        self._kernel.interrupt()

    async def _signal(self) -> None:
        try:
            grace = self._limits.interrupt_grace
            await self._link.request("interrupt", grace, standby=grace + STANDBY_MARGIN)
        except SandboxError as error:
            logger.info("%s", error)  # the next step is harder, and needs no answer
