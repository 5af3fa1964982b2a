"""One exec stream <-> local ZMQ endpoints: a multiplexer of bytes.

``kernel_image/FRAMES.md`` is the format. A :class:`Link` listens on five Unix sockets in a private directory, where a
Jupyter client finds a kernel's five channels, and carries each connection through the exec stream to the kernel.

All links of a program share one thread, a plain selector loop: between a read and its write there is no task switch.
Everything that arrives from a container is hostile: a malformed frame ends the link, and nothing in here grows with
what a container sends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import logging
import selectors
import shutil
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .engine.base import ExecStream
from .errors import FrameError, LinkBroken, LinkError, SandboxError, SupervisorGone
from .frames import (
    CHANNELS,
    CLOSE,
    CREDIT,
    CREDIT_PAYLOAD,
    DATA,
    EVENT,
    HEADER,
    HELLO,
    MAX_PAYLOAD,
    OPEN,
    PROTOCOL,
    REPLY,
    REQUEST,
    WINDOW,
    FrameReader,
    KernelState,
    parse_object,
    words_of,
)
from .link_thread import LinkThread
from .turn import Turn
from .zmtp import MessageBound

logger = logging.getLogger(__name__)

PIECES_AT_ONCE = 64
MOST_WAITING = 10_000
"""Frames that wait for a container that takes none. It can make clients connect again and again."""


@dataclass(slots=True, eq=False)
class _Stream:
    """One client connection, and its twin inside the container."""

    number: int
    connection: socket.socket
    may_send: int = WINDOW
    pending: bytearray = field(default_factory=bytearray)
    """Bytes that the client has not taken. In one piece: a million pieces need far more room than their bytes."""
    uncredited: int = 0
    """Bytes that it has taken, and the relay was not told of yet."""
    watched: int = 0
    bound: MessageBound | None = None
    """What its messages may be, where that was said."""


class Link:
    """The link to one container. Made with no stream; :meth:`attach` gives it one, and another when that breaks.

    ``on_change`` is called, in the link's thread, whenever :attr:`kernel` changed or the link broke.
    """

    def __init__(self, thread: LinkThread, directory: Path, on_change: Callable[[], None]) -> None:
        self._thread = thread
        self._on_change = on_change
        self.directory = directory
        self.kernel = KernelState("starting", 0)
        self.last_death: KernelState | None = None
        """The latest state in which a kernel of this container was dead."""
        self.most_message: int | None = None
        """Bytes of one message that the kernel may send; None for no bound, where what comes is not looked at."""
        self.unclaimed = False
        """The container was made for a pool, and nobody has said yet that it is a session's."""
        self._turn = Turn()
        self.broken: SandboxError | None = LinkBroken("The link has no stream yet.")
        self._connection: Mapping[str, object] = {}
        self._stream: ExecStream | None = None
        self._stream_events = 0
        self._hello: concurrent.futures.Future[None] | None = None
        self._listeners: dict[str, socket.socket] = {}
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)
        self._request_ids = itertools.count(1)
        self._requests: dict[int, concurrent.futures.Future[Mapping[str, object]]] = {}
        self._reader = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self._listening = False
        self._broken_waiters: list[concurrent.futures.Future[None]] = []

    # -- called from any thread -------------------------------------------------------------------------------

    async def attach(self, stream: ExecStream, timeout: float) -> None:
        """Take this stream, and wait up to ``timeout`` seconds for the relay's hello.

        :raises LinkError: it ended, or what came is not the protocol.
        """
        hello: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread.call(lambda: self._start(stream, hello))
        try:
            await asyncio.wait_for(asyncio.wrap_future(hello), timeout)
        except TimeoutError:
            error = LinkBroken(f"The container said nothing for {timeout:g} s.")
            self._thread.call(lambda: self._break(error) if self._stream is stream else None)
            raise error from None

    @property
    def key(self) -> object:
        """The kernel's key, made in its container, which it tells from all others; None before the first hello."""
        return self._connection.get("key")

    def connection_info(self) -> dict[str, object]:
        """Jupyter connection info of the local endpoints, the kernel's own key in it."""
        ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}
        return {"transport": "ipc", "ip": str(self.directory / "kernel"), **self._connection, **ports}

    async def request(self, op: str, timeout: float | None = 10.0, **fields: object) -> Mapping[str, object]:
        """Ask the supervisor one of the ops that FRAMES.md lists, with its fields.

        :raises LinkError: the link is broken, the supervisor refused, or no answer came in ``timeout`` seconds.
        """
        future: concurrent.futures.Future[Mapping[str, object]] = concurrent.futures.Future()
        number = next(self._request_ids)
        message = json.dumps({**fields, "id": number, "op": op}).encode()
        self._thread.call(lambda: self._request(number, message, future))
        try:
            reply = await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except TimeoutError:
            raise LinkError(f"The container's supervisor did not answer {op!r} in {timeout:g} s.") from None
        finally:
            self._requests.pop(number, None)
        if "error" in reply:
            raise LinkError(f"The container's supervisor refused {op!r}: {words_of(reply['error'], 200)}")
        return reply

    async def acquire_turn(self) -> None:
        """Wait until no other program's cell runs in this session. Then it is this program's turn, until it has
        called :meth:`end_turn`; and after that for as long as no other program asks, see :meth:`resume_turn`.

        A cancelled wait leaves the queue.

        :raises LinkError: the link is broken.
        """
        try:
            await self.request("acquire", timeout=None)
        except asyncio.CancelledError:
            self._thread.call(self._release_turn)
            raise
        self._turn.begin(newly=True)

    def resume_turn(self) -> bool:
        """Use the turn that this program still has, without asking anybody; False where it has to be acquired."""
        return self._turn.begin(newly=False)

    def end_turn(self) -> None:
        """This program's cell has ended: who waits may have the turn."""
        if self._turn.end():
            self._thread.call(self._release_turn)

    async def rebind(self) -> None:
        """Offer the endpoints anew: Jupyter's managers delete a kernel's socket files when they restart it."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def bind() -> None:
            self._close_listeners()
            if self._stream is not None:
                self._listen()
            if done.set_running_or_notify_cancel():
                done.set_result(None)

        self._thread.call(bind)
        await asyncio.wrap_future(done)

    async def wait_until_broken(self) -> None:
        """Until the link breaks: at the latest as its container ends."""
        broken: concurrent.futures.Future[None] = concurrent.futures.Future()

        def wait() -> None:
            if self._stream is None:
                if broken.set_running_or_notify_cancel():
                    broken.set_result(None)
            else:
                # without those that nobody waits for any more
                self._broken_waiters = [*(one for one in self._broken_waiters if not one.cancelled()), broken]

        self._thread.call(wait)
        await asyncio.wrap_future(broken)

    def hand_over(self, on_change: Callable[[], None]) -> None:
        """From now on ``on_change`` is told what changes, instead of whoever made this link."""
        self._on_change = on_change

    def drop(self) -> None:
        """Break the link from this side, as a fault of the engine would. The kernel goes on; attach again."""
        self._thread.call(lambda: self._break(LinkBroken("The link was dropped on this side.")))

    async def close(self) -> None:
        """Let go of the stream, the endpoints and their directory. The kernel goes on."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread.call(lambda: self._close(done))
        await asyncio.wrap_future(done)

    # -- in the link's thread ---------------------------------------------------------------------------------

    def _start(self, stream: ExecStream, hello: concurrent.futures.Future[None]) -> None:
        if not hello.set_running_or_notify_cancel():
            stream.close()
            return
        if self._stream is not None:
            self._break(LinkBroken("Another stream took the link's place."))
        self._stream, self._hello = stream, hello
        self._reader = FrameReader()
        self._outgoing.clear()
        self._stream_events = selectors.EVENT_READ
        self._thread.watch(stream, selectors.EVENT_READ, self._on_stream)

    def _listen(self) -> None:
        """Offer the endpoints. Clients that connected while the link was down have waited in the backlog."""
        for number, channel in enumerate(CHANNELS, 1):
            if channel not in self._listeners:
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                listener.bind(str(self.directory / f"kernel-{number}"))
                listener.listen(16)
                listener.setblocking(False)
                self._listeners[channel] = listener
            self._thread.watch(self._listeners[channel], selectors.EVENT_READ, self._acceptor(channel))
        self._listening = True

    def _acceptor(self, channel: str) -> Callable[[int], None]:
        def accept(_events: int) -> None:
            if len(self._outgoing) > MOST_WAITING:
                self._break(FrameError("The container takes nothing of what is sent to it."))
                return
            with contextlib.suppress(BlockingIOError):
                connection, _ = self._listeners[channel].accept()
                connection.setblocking(False)
                bound = MessageBound(self.most_message) if self.most_message is not None else None
                stream = _Stream(next(self._numbers), connection, bound=bound)
                self._streams[stream.number] = stream
                self._send(OPEN, stream.number, channel.encode())
                self._watch(stream)

        return accept

    def _request(self, number: int, message: bytes, future: concurrent.futures.Future[Mapping[str, object]]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if self._stream is None or not self._listening:
            future.set_exception(LinkBroken("The link to the container is down."))
            return
        self._requests[number] = future
        self._send(REQUEST, 0, message)

    def _release_turn(self) -> None:
        if self._stream is not None and self._listening:
            self._send(REQUEST, 0, json.dumps({"id": next(self._request_ids), "op": "release"}).encode())

    def _send(self, kind: int, number: int, payload: bytes) -> None:
        self._outgoing.append(memoryview(HEADER.pack(kind, number, len(payload)) + payload))
        self._thread.flush_later(self._flush)

    def _flush(self) -> None:
        """Write what waits; where the stream is full, wait for it, and read no client meanwhile."""
        if self._stream is None:
            return
        was_full = bool(self._stream_events & selectors.EVENT_WRITE)
        if not was_full:
            self._queue_credits()
        while self._outgoing or self._queue_credits():
            pieces = list(itertools.islice(self._outgoing, PIECES_AT_ONCE))
            try:
                written = self._stream.send(pieces)
            except BlockingIOError:
                break
            except OSError as error:
                self._break(LinkBroken(f"The stream into the container broke ({error})."))
                return
            while written:
                piece = self._outgoing.popleft()
                if len(piece) > written:
                    self._outgoing.appendleft(piece[written:])
                    break
                written -= len(piece)
        if bool(self._outgoing) != was_full:
            self._stream_events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
            self._thread.watch(self._stream, self._stream_events, self._on_stream)
            for stream in self._streams.values():
                self._watch(stream)

    def _queue_credits(self) -> bool:
        """One credit for each stream that is due one. Called where nothing waits to be written: a relay that sends
        and never reads would make them pile up."""
        for stream in self._streams.values():
            if stream.uncredited:
                payload = CREDIT_PAYLOAD.pack(stream.uncredited)
                self._outgoing.append(memoryview(HEADER.pack(CREDIT, stream.number, len(payload)) + payload))
                stream.uncredited = 0
        return bool(self._outgoing)

    def _on_stream(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if not events & selectors.EVENT_READ or self._stream is None:
            return
        try:
            received = self._stream.recv()
            if not received:
                words = self._stream.last_words().strip()
                raise LinkBroken(f"The stream into the container ended{': ' + words if words else '.'}")
            if not self._listening and not self._reader.has_begun and received[0] >= ord(" "):
                # what an engine says where it could not start the relay comes as if the relay had written it
                words = received[:300].decode(errors="replace").strip()
                raise LinkBroken(f"No relay answers in the container: {words!r}.")
            for frame in self._reader.feed(received):
                self._on_frame(*frame)
        except BlockingIOError:
            return
        except LinkError as error:
            self._break(error)
        except OSError as error:
            self._break(LinkBroken(f"The stream into the container broke ({error})."))

    def _on_frame(self, kind: int, number: int, payload: bytes) -> None:
        if not self._listening and kind == CLOSE:
            raise SupervisorGone("The container's supervisor is gone, or something else is in its place.")
        if not self._listening and kind != HELLO:
            raise FrameError("The container's first frame is no hello.")
        if kind in (DATA, CLOSE, CREDIT):
            stream = self._streams.get(number)
            if stream is None:
                return  # closed on this side while the frame was under way
            if kind == DATA:
                self._on_bytes(stream, payload)
            elif kind == CLOSE:
                self._close_stream(stream, tell=False)
            else:
                if len(payload) != CREDIT_PAYLOAD.size:
                    raise FrameError("The container sent a malformed credit.")
                stream.may_send += CREDIT_PAYLOAD.unpack(payload)[0]
                if stream.may_send > WINDOW:
                    raise FrameError("The container credited more than was sent.")
                self._watch(stream)
        elif kind in (HELLO, REPLY, EVENT):
            message = parse_object(payload)
            if kind == HELLO:
                self._on_hello(message)
            elif kind == EVENT and message.get("event") in ("turn wanted", "turn lost"):
                self._turn.on_event(message["event"] == "turn wanted", self._release_turn)
            elif kind == EVENT:
                self._on_event(KernelState.parse(message))
            elif isinstance(answered := message.get("id"), int) and (future := self._requests.pop(answered, None)):
                future.set_result(message)
        else:
            raise FrameError(f"The container sent a frame of the unknown kind {kind}.")

    def _on_hello(self, message: Mapping[str, object]) -> None:
        connection = message.get("connection")
        if self._listening or message.get("protocol") != PROTOCOL or not isinstance(connection, dict):
            raise FrameError(
                "The container speaks another version of the link "
                f"({words_of(message.get('protocol'), 9)}; this is {PROTOCOL}).",
                "Stop the session and start it again: its image is older or newer than this program.",
            )
        key, scheme = connection.get("key"), connection.get("signature_scheme")
        if not isinstance(key, str) or not 0 < len(key) < 1000 or scheme != "hmac-sha256":
            raise FrameError("The container's hello holds no usable key.")
        self._connection = {"key": key, "signature_scheme": scheme}
        self.unclaimed = message.get("unclaimed") is True
        self.broken = None
        self._on_event(KernelState.parse(message.get("kernel")))
        self._listen()
        if self._hello is not None:
            self._hello.set_result(None)
        self._hello = None

    def _on_event(self, state: KernelState) -> None:
        if state != self.kernel:
            self.kernel = state
            if state.state == "dead":
                self.last_death = state
            self._on_change()

    # -- client connections -----------------------------------------------------------------------------------

    def _on_bytes(self, stream: _Stream, payload: bytes) -> None:
        """The kernel sent: pass it on at once, keep what the client does not take."""
        if len(stream.pending) + stream.uncredited + len(payload) > WINDOW:
            raise FrameError("The container sent more than the window.")
        if stream.bound is not None:
            stream.bound.feed(payload)
        self._deliver(stream, payload)

    def _deliver(self, stream: _Stream, arrived: bytes = b"") -> None:
        taken = 0
        try:
            if stream.pending:
                stream.pending += arrived
                taken = stream.connection.send(stream.pending)
                del stream.pending[:taken]
            elif arrived:
                try:
                    taken = stream.connection.send(arrived)
                finally:
                    stream.pending += memoryview(arrived)[taken:]
        except BlockingIOError:
            pass
        except OSError:
            self._close_stream(stream, tell=True)
            return
        if taken:
            stream.uncredited += taken
            self._thread.flush_later(self._flush)
        self._watch(stream)

    def _on_client(self, stream: _Stream, events: int) -> None:
        if stream.number not in self._streams:
            return  # closed by an earlier event of the same wake-up
        if events & selectors.EVENT_WRITE:
            self._deliver(stream)
        if events & selectors.EVENT_READ and stream.number in self._streams:
            try:
                received = stream.connection.recv(min(MAX_PAYLOAD, stream.may_send))
            except BlockingIOError:
                return
            except OSError:
                received = b""
            if received:
                stream.may_send -= len(received)
                self._send(DATA, stream.number, received)
                if stream.may_send == 0:
                    self._watch(stream)
            else:
                self._close_stream(stream, tell=True)

    def _watch(self, stream: _Stream) -> None:
        """Wait for just those events that can be acted on now."""
        wanted = selectors.EVENT_WRITE if stream.pending else 0
        if stream.may_send and not self._stream_events & selectors.EVENT_WRITE:
            wanted |= selectors.EVENT_READ
        if wanted != stream.watched:
            stream.watched = wanted
            self._thread.watch(stream.connection, wanted, lambda events: self._on_client(stream, events))

    def _close_stream(self, stream: _Stream, *, tell: bool) -> None:
        del self._streams[stream.number]
        self._thread.watch(stream.connection, 0)
        stream.connection.close()
        if tell:
            self._send(CLOSE, stream.number, b"")

    # -- the end ----------------------------------------------------------------------------------------------

    def _break(self, error: SandboxError) -> None:
        if self._stream is None:
            return
        logger.debug("link %s: %s", self.directory.name, error)
        self._thread.watch(self._stream, 0)
        self._stream.close()
        self._stream = None
        self._stream_events = 0
        for stream in list(self._streams.values()):
            self._close_stream(stream, tell=False)
        for listener in self._listeners.values():
            self._thread.watch(listener, 0)
        self._listening = False
        self._outgoing.clear()
        self.broken = error
        self._turn.reset()
        for future in [*self._requests.values(), self._hello]:
            if future is not None:
                future.set_exception(error)
        self._requests.clear()
        self._hello = None
        waiters, self._broken_waiters = self._broken_waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)
        self._on_change()

    def _close_listeners(self) -> None:
        for number, channel in enumerate(CHANNELS, 1):
            if listener := self._listeners.pop(channel, None):
                self._thread.watch(listener, 0)
                listener.close()
                (self.directory / f"kernel-{number}").unlink(missing_ok=True)

    def _close(self, done: concurrent.futures.Future[None]) -> None:
        self._on_change = lambda: None
        self._break(LinkBroken("The link was closed by this program."))
        self._close_listeners()
        shutil.rmtree(self.directory, ignore_errors=True)
        if done.set_running_or_notify_cancel():
            done.set_result(None)
