"""This program's hold on a session: its container, the link into it, its kernel; each made again where it is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from .container import Container, Starter
from .errors import ContainerGone, KernelStartFailed, LinkBroken, LinkError, SupervisorGone
from .execution import cause
from .kernel import Kernel
from .link import Link
from .notices import of_the_session_before
from .registry import SessionName

logger = logging.getLogger(__name__)

START_ATTEMPTS = 8
RESTORING_ATTEMPTS = 2
"""Containers in a row that may end before their Python is ready; the next one leaves saved variables alone."""
TURN_ATTEMPTS = 5
CATCH_UP = 5.0
"""Seconds at most to get what threads of earlier cells printed while the link was down."""


class Stopped(Exception):  # noqa: N818 - not an error
    """What waited for its turn is not wanted any more."""


class Attachment:
    """A container, a link that works and a kernel that answers, once :meth:`make_ready` has returned.

    ``wake`` is set, in the event loop, whenever the link or the kernel behind it changes; ``on_change`` is called
    in the link's thread.
    """

    def __init__(
        self,
        name: SessionName,
        starter: Starter,
        *,
        kept: bool,
        wake: asyncio.Event,
        on_change: Callable[[], None],
    ) -> None:
        self._name = name
        self._starter = starter
        self._settings = starter.settings
        self._kept = kept
        self._wake = wake
        self._on_change = on_change
        self._container: Container | None = None
        self._kernel: Kernel | None = None
        self._serial = 0
        self._connected_to: tuple[int, int] | None = None
        """Which container of this session, and which kernel in it, the kernel client speaks to."""
        self._known: tuple[int, int] | None = None
        """The kernel that holds what callers believe to have; None once they were told that it is lost."""
        self._asked_before: int | None = None
        """The container that was asked what there is to tell of the session before it."""
        self._ended_early = 0
        """Containers in a row that have ended, or whose links broke, before their Python was ready."""
        self._loss: tuple[int, str] | None = None
        """The container in which variables were lost, and the sentence that says so."""

    @property
    def container(self) -> Container:
        """The container that this program is attached to.

        :raises KernelStartFailed: there is none; :meth:`make_ready` makes one.
        """
        if self._container is None:
            raise KernelStartFailed(f"The session {self._name.key!r} has no container.")
        return self._container

    @property
    def kernel(self) -> Kernel:
        """The kernel that this program is connected to.

        :raises KernelStartFailed: as :attr:`container`.
        """
        if self._kernel is None:
            raise KernelStartFailed(f"The session {self._name.key!r} has no kernel.")
        return self._kernel

    @property
    def link(self) -> Link:
        """The link into the container."""
        return self.container.link

    @property
    def is_attached(self) -> bool:
        """Whether there is a container, and a link into it that works."""
        return self._container is not None and self._container.link.broken is None

    @property
    def is_current(self) -> bool:
        """Whether the kernel that we are connected to is the one that runs."""
        return (
            self.is_attached
            and self._kernel is not None
            and self.link.kernel.state == "ready"
            and self._connected_to == (self._serial, self.link.kernel.generation)
        )

    async def take_notice(self) -> str | None:
        """What callers have to be told of what happened to the session since they last ran a cell.

        A container tells of the session before it once, to whoever asks first: so that is not asked for before
        somebody gets a cell's result, to be told in.
        """
        before = None
        if self._asked_before != self._serial:
            try:
                answer = await self.link.request("before")
            except LinkError as error:
                logger.debug("%s; asked again at the next cell", error)
            else:
                self._asked_before = self._serial
                # who had a container before knows that there was one: it was told, or is told below
                found = self.container.found_workspace and self._serial == 1
                before = of_the_session_before(answer, found=found)
        loss, self._loss = self._loss, None
        if loss is None or (before is not None and loss[0] != self._serial):
            return before  # which tells of that loss as well, and more
        return f"{before} {loss[1]}" if before else loss[1]

    def loss_was_told(self) -> None:
        """The caller knows that variables are lost: the next kernel comes without a notice."""
        self._known = None

    async def make_ready(self) -> None:
        """Whatever is missing of container, link and kernel is made.

        :raises SandboxError: it can't be: no engine, no image, no kernel that starts.
        """
        for _ in range(START_ATTEMPTS):
            if self._container is None:
                await self._open()
            link = self.link
            was_broken = link.broken is not None
            if was_broken:
                if self._kernel is not None:
                    self._kernel.hold()
                try:
                    await self.container.heal()
                except SupervisorGone as error:
                    logger.warning("%s; removing the container", error)
                    await self.container.remove()
                    await self.forget()
                    continue
                except ContainerGone:
                    await self.forget()
                    continue
            if not await self._wait_for_kernel():
                self._ended_early += 1
                continue  # the link broke meanwhile
            self._ended_early = 0
            generation = (self._serial, link.kernel.generation)
            if self._kernel is not None and self._connected_to == generation:
                if was_broken:
                    await self._kernel.catch_up(CATCH_UP)
                return
            try:
                await self._connect(generation)
            except LinkError:
                continue  # it broke
            return
        raise KernelStartFailed(
            f"The session {self._name.key!r} did not come up in {START_ATTEMPTS} attempts.",
            "`docker-interpreter doctor` looks for the reason.",
        )

    async def take_turn(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """A kernel that answers, and the turn to run cells in it, until the caller ends it (:meth:`Link.end_turn`).

        ``is_stopped`` is asked whenever ``wake`` was set.

        :raises Stopped: it said so; the queue was left.
        :raises SandboxError: as :meth:`make_ready`.
        """
        for _ in range(TURN_ATTEMPTS):
            if is_stopped():
                raise Stopped
            await self.make_ready()
            link = self.link
            try:
                await self._wait_for_turn(link, is_stopped)
            except LinkError:
                if link.broken is None:
                    raise
                continue  # the container may have been reaped while we waited, or its engine restarted
            if is_stopped():
                link.end_turn()
                raise Stopped
            if self.is_current:
                return
            link.end_turn()  # its kernel is another by now
        raise KernelStartFailed(
            f"The session {self._name.key!r} was replaced {TURN_ATTEMPTS} times while a cell waited for its turn.",
            "Another program may be stopping it again and again.",
        )

    async def _wait_for_turn(self, link: Link, is_stopped: Callable[[], bool]) -> None:
        """Wait until no other program's cell runs in this session."""
        if link.resume_turn():
            return
        asking = asyncio.create_task(link.acquire_turn())
        try:
            while not asking.done() and not is_stopped():
                self._wake.clear()
                waking = asyncio.create_task(self._wake.wait())
                await asyncio.wait((asking, waking), return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
            if not asking.done():
                raise Stopped
            await asking
        finally:
            asking.cancel()

    async def restart(self) -> None:
        """A fresh kernel in the same container, which nobody needs to be told of."""
        if self.is_attached:
            await self.link.request("restart")
            self._known = None

    async def forget(self) -> None:
        """Let go of the container and its kernel, which go on if they can."""
        if self._kernel is not None:
            await self._kernel.close()
            self._kernel = None
        if self._container is not None:
            await self._container.link.close()
            self._container = None

    async def _open(self) -> None:
        restore = self._ended_early < RESTORING_ATTEMPTS
        try:
            container = await self._starter.open(
                self._name, kept=self._kept, on_change=self._on_change, restore=restore
            )
        except KernelStartFailed:
            self._ended_early += 1
            raise
        self._container = container
        self._serial += 1

    async def _wait_for_kernel(self) -> bool:
        """Until the supervisor says that its kernel is ready; starts one where there is none. False: the link broke.

        :raises KernelStartFailed: kernels end as they start, or none is ready in time.
        """
        link = self.link
        seconds = self._settings.limits.start_timeout + self._settings.saving.timeout
        deadline = time.monotonic() + seconds
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
                    try:
                        await link.request("restart")
                    except LinkBroken:
                        return False
            try:
                await asyncio.wait_for(self._wake.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise KernelStartFailed(
                    f"Python was not ready after {seconds:g} s.",
                    "The machine may be overloaded; `limits.start_timeout` gives it longer.",
                ) from None

    async def _connect(self, generation: tuple[int, int]) -> None:
        link = self.link
        if self._kernel is not None:
            await self._kernel.close()
            self._kernel = None
        kernel = Kernel(link, self._settings.limits, self._wake.set)
        await self._connect_unless_broken(kernel)
        self._kernel = kernel
        self._connected_to = generation
        if self._known is not None:
            death = link.last_death
            why = f" ({cause(death)})" if death is not None and self._known[0] == generation[0] else ""
            self._loss = (
                self._known[0],
                f"Python was restarted since the last cell{why}: variables are gone, files in the workspace are kept.",
            )
        self._known = generation

    async def _connect_unless_broken(self, kernel: Kernel) -> None:
        """Connect to the kernel; a link that breaks meanwhile is not waited for: the container may be about to end.

        :raises LinkBroken: it broke.
        :raises KernelStartFailed: the kernel does not answer.
        """
        connecting = asyncio.create_task(kernel.connect(self._settings.limits.start_timeout))
        breaking = asyncio.create_task(self.link.wait_until_broken())
        try:
            await asyncio.wait((connecting, breaking), return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise LinkBroken("The link broke before the kernel had answered.")
            await connecting
        finally:
            connecting.cancel()
            breaking.cancel()
            await asyncio.wait((connecting, breaking))
