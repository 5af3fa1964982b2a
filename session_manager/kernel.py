"""One live kernel: this program's Jupyter client of it, and the requests it answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import KernelStartFailed
from .json_bound import holds_too_much
from .link import Link
from .missed import Missed
from .outputs import DisplayRegistry, Output, OutputLog
from .protocol import Cell, Message, Router, parent_id
from .settings import Limits

if TYPE_CHECKING:
    from .kernel_client import KernelClient

logger = logging.getLogger(__name__)

JSON_PARTS = 5
"""The signature, and what is read as JSON: header, parent header, metadata, content. Buffers of bytes come after."""
KERNEL_INFO_AGAIN = 0.5
"""Seconds without a sign of life on iopub before kernel_info is asked again (the subscription race)."""
REJOIN = 1.0
"""Seconds that a subscription which may be whole gets to show it, before it is made anew."""
SLICE = 0.005
"""Seconds that one channel may keep the event loop before other tasks get their turn."""

MOST_COMPLETIONS = 1000

OnOutput = Callable[[Output], None]


@dataclass(frozen=True, slots=True)
class Completions:
    """Any of ``matches`` may replace ``code[start:end]``."""

    matches: tuple[str, ...]
    start: int
    end: int


def load_client() -> None:
    """Load jupyter_client, in a thread while an engine works: nothing needs it before :meth:`Kernel.connect`, which
    waits for it, and says what is missing."""
    with contextlib.suppress(ImportError):
        from . import kernel_client  # noqa: F401 - to have it loaded


class Kernel:
    """The client of one kernel process, from :meth:`connect` to :meth:`close`.

    ``on_progress`` is called in the event loop whenever a cell may have ended.
    """

    def __init__(self, link: Link, limits: Limits, on_progress: Callable[[], None]) -> None:
        self._link = link
        self._limits = limits
        self._on_progress = on_progress
        self._router = Router()
        self._displays = DisplayRegistry()
        self._replies: dict[str, asyncio.Future[Mapping[str, object]]] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._client: KernelClient | None = None
        self._listeners: dict[str, OnOutput] = {}
        self._heard = asyncio.Event()
        self._last_info: str | None = None
        self._missed = Missed(self._take_output)
        self._subshell: str | None = None
        self._making_subshell = asyncio.Lock()
        self.generation = link.kernel.generation
        self.last_message = 0.0
        """``time.monotonic()`` of the last message from the kernel."""
        self.last_of_a_cell = 0.0
        """The same of the last message that belonged to a cell of ours."""
        self.malformed = 0
        """Messages that were none."""
        self.left_out = 0
        """Messages that held more than is worth reading."""

    async def connect(self, timeout: float) -> None:
        """Open the channels and wait until the kernel answers and its outputs reach us.

        :raises KernelStartFailed: it does not within ``timeout`` seconds.
        """
        from .kernel_client import open_client

        # of all parts of a message: the largest part may be as large as that, and the others are small
        self._link.most_message = 2 * self._limits.message_bytes
        client = open_client(self._link.connection_info(), self._limits.message_bytes)
        self._client = client
        for channel, take in (
            (client.shell_channel, self._on_reply),
            (client.control_channel, self._on_reply),
            (client.iopub_channel, self._on_iopub),
        ):
            self._readers.append(asyncio.create_task(self._read(channel, take)))
        try:
            await self._join(timeout)
        except BaseException:
            await self.close()
            raise

    def hold(self) -> None:
        """A connection went: keep back what comes until :meth:`catch_up` has put what was missed before it."""
        self._missed.hold()

    def release(self) -> None:
        """Let what was held come: this kernel has ended, and will publish no more."""
        self._missed.release()

    async def catch_up(self, timeout: float) -> bool:
        """Get what the kernel published while we could not hear it, and make sure that we hear it now; whether
        nothing is missing. Takes at most about twice ``timeout`` seconds.

        :raises KernelStartFailed: the kernel does not answer, or its outputs do not reach us.
        """
        self._missed.hold()
        try:
            try:
                await self._join(min(timeout, REJOIN))
            except KernelStartFailed:
                self._connected().reconnect("iopub")
                await self._join(timeout)
        finally:
            complete = await self._fetch_missed(timeout)
        return complete

    async def _fetch_missed(self, timeout: float, cell: str | None = None) -> bool:
        async def ask(fields: dict[str, object]) -> Message:
            return await self._reply_to(self._send("control", "replay_request", fields))

        try:
            async with asyncio.timeout(timeout):
                return await self._missed.fetch(ask, cell=cell)
        except (TimeoutError, KernelStartFailed) as error:
            logger.info("what was published meanwhile can't be had: %s", error or "no answer")
            return False

    async def follow(self, msg_id: str, on_output: OnOutput | None, timeout: float) -> Cell:
        """Take over a cell that another program sent: what is kept of its output, and all that follows."""
        cell = Cell(msg_id, OutputLog(self._limits.output_bytes, registry=self._displays))
        self._router.add(cell)
        if on_output is not None:
            self._listeners[msg_id] = on_output
        self._missed.hold()
        await self._fetch_missed(timeout, msg_id)
        return cell

    async def _join(self, timeout: float) -> None:
        """Wait until the kernel answers and its outputs reach us; what it publishes before that is lost."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._heard.clear()
                    # on the control channel, which answers while a cell of another program runs
                    self._last_info = self._send("control", "kernel_info_request", {})
                    await self._reply_to(self._last_info)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._heard.wait(), KERNEL_INFO_AGAIN)
                        return
                    if self._missed.is_full:
                        return  # by a flood, which the answer is behind: far more than a connection that ended leaves
        except TimeoutError:
            raise KernelStartFailed(f"The kernel did not answer within {timeout:g} s.") from None
        finally:
            self._last_info = None

    async def close(self) -> None:
        """Close the channels. The kernel goes on."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._readers.clear()
        if self._client is not None:
            self._client.stop_channels()
            self._client = None
        for future in self._replies.values():
            future.cancel()
        self._replies.clear()

    # -- requests ---------------------------------------------------------------------------------------------

    def execute(
        self, code: str, on_output: OnOutput | None, log: OutputLog | None = None, asked_by: str | None = None
    ) -> Cell:
        """Send a cell; its :class:`Cell` fills as messages arrive. ``asked_by`` goes along, for the session's journal.

        ``input()`` in it fails at once, and its failure does not abort the cells of other clients that wait behind it.
        """
        log = log or OutputLog(self._limits.output_bytes, registry=self._displays)
        msg_id = self._send(
            "shell",
            "execute_request",
            {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
                "stop_on_error": False,
            },
            metadata={} if asked_by is None else {"asked_by": asked_by[:200]},
        )
        cell = Cell(msg_id, log)
        self._router.add(cell)
        if on_output is not None:
            self._listeners[cell.msg_id] = on_output
        return cell

    def stop_listening(self, cell: Cell) -> None:
        """Hand no more outputs of this cell to its ``on_output``; they are still kept."""
        self._listeners.pop(cell.msg_id, None)

    def interrupt(self) -> None:
        """Ask the kernel, on its control channel, to interrupt itself. Its yes means nothing: watch the cell."""
        self._send("control", "interrupt_request", {})

    async def ask_beside(self, msg_type: str, content: dict[str, object], timeout: float) -> Mapping[str, object]:
        """Ask something in a subshell, which answers while a cell runs; the content of the reply.

        :raises TimeoutError: it did not within ``timeout`` seconds. The next call gets a fresh subshell.
        """
        subshell: str | None = None
        try:
            async with asyncio.timeout(timeout):
                async with self._making_subshell:
                    if self._subshell is None:
                        made = await self._reply_to(self._send("control", "create_subshell_request", {}))
                        found = made.get("subshell_id")
                        self._subshell = found if isinstance(found, str) and len(found) < 200 else None
                    subshell = self._subshell
                return await self._reply_to(self._send("shell", msg_type, content, subshell=subshell))
        except TimeoutError:
            if subshell is not None and subshell == self._subshell:
                # what holds it up may go on for ever; it is told to end when it can
                self._send("control", "delete_subshell_request", {"subshell_id": subshell})
                self._subshell = None
            raise

    async def complete(self, code: str, cursor: int, timeout: float = 5.0) -> Completions:
        """Completions of ``code`` at ``cursor`` (an index in characters), also while a cell runs.

        :raises TimeoutError: native code holds the interpreter, or what is asked takes too long.
        """
        content = await self.ask_beside("complete_request", {"code": code, "cursor_pos": cursor}, timeout)
        matches, start, end = content.get("matches"), content.get("cursor_start"), content.get("cursor_end")
        if not isinstance(matches, list) or not isinstance(start, int) or not isinstance(end, int):
            return Completions((), cursor, cursor)
        texts = tuple(match for match in matches[:MOST_COMPLETIONS] if isinstance(match, str))
        return Completions(texts, min(max(0, start), cursor), min(max(0, end), len(code)))

    async def inspect(self, code: str, cursor: int, timeout: float = 5.0) -> str:
        """What the kernel says of the name at ``cursor``, as text; empty where it knows nothing.

        :raises TimeoutError: as :meth:`complete`.
        """
        fields: dict[str, object] = {"code": code, "cursor_pos": cursor, "detail_level": 0}
        content = await self.ask_beside("inspect_request", fields, timeout)
        bundle = content.get("data")
        text = bundle.get("text/plain") if isinstance(bundle, dict) else None
        return text if isinstance(text, str) else ""

    def _connected(self) -> KernelClient:
        if self._client is None:
            raise KernelStartFailed("The kernel's channels are closed.")
        return self._client

    def _send(
        self,
        channel: str,
        msg_type: str,
        content: dict[str, object],
        *,
        subshell: str | None = None,
        metadata: dict[str, object] | None = None,
    ) -> str:
        """Send a request; its id. Where the connection is gone, or nobody reads, it is made anew: this never waits."""
        client = self._connected()
        message = client.session.msg(msg_type, content, metadata=metadata)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        if not client.send(channel, message):
            client.reconnect(channel)
            client.send(channel, message)
        msg_id: str = message["header"]["msg_id"]
        return msg_id

    async def _reply_to(self, msg_id: str) -> Mapping[str, object]:
        future: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        self._replies[msg_id] = future
        try:
            return await future
        finally:
            self._replies.pop(msg_id, None)

    # -- messages ---------------------------------------------------------------------------------------------

    async def _read(self, channel: Any, take: Callable[[Message, int], None]) -> None:
        """Read one channel for ever. What is malformed is counted and dropped; nothing stops the reading."""
        slice_end = time.monotonic() + SLICE
        while True:
            if take == self._on_iopub:
                await self._missed.room()
            frames = await channel.socket.recv_multipart()
            message = self._decode(channel.session, frames)
            if message is not None:
                self.last_message = time.monotonic()
                take(message, sum(map(len, frames)))
            # a receive that need not wait does not yield: without this a flood would stop the event loop
            if time.monotonic() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.monotonic() + SLICE

    def _decode(self, session: Any, frames: list[bytes]) -> Message | None:
        try:
            _, parts = session.feed_identities(frames)
            if holds_too_much(*parts[:JSON_PARTS]):
                self.left_out += 1
                logger.debug("a message of %d bytes holds too many values", sum(map(len, frames)))
                return None
            message: object = session.deserialize(parts)
        except Exception as error:  # noqa: BLE001 - hostile bytes can fail in any way that a decoder can
            self.malformed += 1
            logger.debug("malformed message: %r", error)
            return None
        return message if isinstance(message, dict) else None

    def _on_reply(self, message: Message, _size: int) -> None:
        future = self._replies.get(parent_id(message) or "")
        content = message.get("content")
        if future is not None and not future.done() and isinstance(content, dict):
            future.set_result(content)
        elif self._router.on_shell(message) is not None:
            self._on_progress()  # also where idle is not in yet: the time to wait for it begins

    def _on_iopub(self, message: Message, size: int) -> None:
        welcome = message.get("msg_type") == "iopub_welcome"
        if welcome or parent_id(message) == self._last_info:
            self._heard.set()
        if not welcome:  # that one is for this connection alone
            self._missed.on_message(message, size)

    def _take_output(self, message: Message) -> None:
        routed = self._router.on_iopub(message)
        if routed is None:
            return
        self.last_of_a_cell = time.monotonic()
        cell, output = routed
        if output is not None and (listener := self._listeners.get(cell.msg_id)) is not None:
            listener(output)
            self._on_progress()  # the listener may have asked for the cell to be stopped
        if cell.ended or message.get("msg_type") == "status":
            self._on_progress()
