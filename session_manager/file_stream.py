"""The stream of a file door in an event loop: frames out and in, one request at a time."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping

from .engine.base import ExecStream
from .errors import FileError, FrameError
from .frames import CLOSE, DATA, HEADER, REPLY, REQUEST, FrameReader, parse_object, words_of

SILENCE = 120.0
"""Seconds in which the other side has to send or take something: it may walk a large workspace first."""


class FileStream:
    """A file door's stream. Every method may raise :class:`FileError`: it broke, or what came is not the format."""

    def __init__(self, stream: ExecStream) -> None:
        self._stream = stream
        self._reader = FrameReader()
        self._frames: deque[tuple[int, bytes]] = deque()
        self._loop = asyncio.get_running_loop()

    async def ask(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Send a request; the answer, which may be a refusal."""
        await self._send(REQUEST, json.dumps(request).encode())
        return await self.reply()

    async def reply(self) -> Mapping[str, object]:
        """The next answer."""
        kind, payload = await self._receive()
        if kind != REPLY:
            raise FileError("The container sent something else than an answer.")
        return self._parse(payload)

    async def data(self) -> bytes:
        """The next piece of a file; b"" after the last."""
        kind, payload = await self._receive()
        if kind == REPLY:  # what went wrong meanwhile
            raise FileError(f"The file can't be read to its end: {words_of(self._parse(payload).get('sentence'), 500)}")
        if kind != DATA:
            raise FileError("The container sent something else than a file.")
        return payload

    async def send_data(self, piece: bytes) -> bool:
        """Send a piece of a file; False where the file was refused meanwhile, which is the next :meth:`reply`."""
        self._look()
        if piece and not self._frames:  # an empty one would end it
            await self._send(DATA, piece)
        return not self._frames

    async def end_data(self) -> None:
        """The file is complete; or, where it was refused meanwhile, is given up."""
        self._look()
        await self._send(CLOSE if self._frames else DATA, b"")

    async def close(self) -> None:
        """End the door. What it had not put wholly into its place it removes."""
        await asyncio.shield(asyncio.to_thread(self._stream.close))

    @staticmethod
    def _parse(payload: bytes) -> Mapping[str, object]:
        try:
            return parse_object(payload)
        except FrameError as error:
            raise FileError(error.message) from error

    def _look(self) -> None:
        """Take what has come already."""
        if self._frames:
            return
        try:
            self._take(self._stream.recv())
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            raise broken(error) from error

    def _take(self, received: bytes) -> None:
        if not received:
            words = self._stream.last_words().strip()[-300:]
            raise FileError(f"The container ended the transfer{': ' + words if words else '.'}", "Try again.")
        for kind, _, payload in self._reader.feed(received):
            self._frames.append((kind, payload))

    async def _receive(self) -> tuple[int, bytes]:
        while not self._frames:
            try:
                self._take(self._stream.recv())
            except BlockingIOError:
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
            except (OSError, FrameError) as error:
                raise broken(error) from error
        return self._frames.popleft()

    async def _send(self, kind: int, payload: bytes) -> None:
        waiting = [memoryview(HEADER.pack(kind, 0, len(payload)))]
        if payload:
            waiting.append(memoryview(payload))
        while waiting:
            try:
                sent = self._stream.send(waiting)
            except BlockingIOError:
                await self._wait(self._loop.add_writer, self._loop.remove_writer)
                continue
            except OSError as error:
                raise broken(error) from error
            while sent:
                piece = waiting.pop(0)
                if len(piece) > sent:
                    waiting.insert(0, piece[sent:])
                    break
                sent -= len(piece)

    async def _wait(self, watch: Callable[..., object], forget: Callable[[int], object]) -> None:
        """Until the stream can be read, or written to."""
        ready: asyncio.Future[None] = self._loop.create_future()
        descriptor = self._stream.fileno()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        watch(descriptor, wake)
        try:
            await asyncio.wait_for(ready, SILENCE)
        except TimeoutError:
            raise FileError(f"The container said nothing for {SILENCE:g} s while files were transferred.") from None
        finally:
            forget(descriptor)


def broken(error: Exception) -> FileError:
    """What to raise where the stream breaks."""
    return FileError(f"The stream of files into the container broke ({error}).", "Try again.")
