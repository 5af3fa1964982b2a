"""How what a cell prints and shows leaves the kernel: nothing is dropped, and what waits in here is bounded."""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

from ipykernel.iostream import IOPubThread, OutStream
from ipykernel.thread import BaseThread

from kernel_image.journal import Journal
from kernel_image.kept_output import KeptOutput

PUBLISH_QUEUE = 1000  # messages that may wait for the publishing thread before a printing cell waits too
STREAM_CHUNK = 1 << 18  # characters of one stream message, and of what a stream may hold back


class WaitingIOPubThread(IOPubThread):
    """Publishes as ipykernel does, but makes the producer wait when it is far ahead.

    ipykernel's own queue has no bound, so a cell that prints faster than the wire carries would fill this
    process's memory, and be killed for it.
    """

    kept_output: KeptOutput
    journal: Journal | None = None

    def send_multipart(self, *args: Any, **kwargs: Any) -> None:
        """Called with each message that is to be published."""
        self.kept_output.add(args[0])
        if self.journal is not None:
            self.journal.add(args[0])
        if threading.current_thread() is self.thread:
            # what a flush sends goes out before the flush counts as done: native code may hold the interpreter next
            self._really_send(*args, **kwargs)
        else:
            super().send_multipart(*args, **kwargs)

    def schedule(self, f: Callable[..., Any]) -> None:
        # ipykernel's own threads must not wait here: the control thread answers interrupts during a flood
        producer = threading.current_thread()
        if producer is not self.thread and not isinstance(producer, BaseThread) and self.thread.is_alive():
            while len(self._events) > PUBLISH_QUEUE and self.thread.is_alive():
                time.sleep(0.001)
        super().schedule(f)


class BoundedOutStream(OutStream):
    """A stdout or stderr that holds back at most ``STREAM_CHUNK`` characters before it waits for the publisher.

    A flush, and so a cell's end, takes in all that programs of the cell had written to the descriptor by then;
    ipykernel's own leaves that to a thread, and hopes. Where nothing waits to go out, a flush does not wait either:
    ipykernel flushes four times in each cell, each a journey to the publishing thread and back.
    """

    _held = 0
    _clean = True
    """All that was written was given to the publisher, or is about to be: where it is not, ``_sending`` is true."""
    _sending = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._taking = threading.Lock()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        super().__init__(*args, **{**kwargs, "watchfd": "force"})  # whatever the environment says

    def write(self, string: str) -> int | None:
        if not isinstance(string, str) or len(string) <= STREAM_CHUNK:
            return self._write_chunk(string)
        for start in range(0, len(string), STREAM_CHUNK):
            self._write_chunk(string[start : start + STREAM_CHUNK])
        return len(string)

    def _write_chunk(self, chunk: str) -> int | None:
        written = super().write(chunk)
        self._clean = False
        self._held += len(chunk)
        if self._held > STREAM_CHUNK:
            self._flush_written()
        return written

    def flush(self) -> None:
        # the control thread answers interrupts, and must not wait for who writes
        if not isinstance(threading.current_thread(), BaseThread):
            self.take_in()
        self._flush_written()

    def _flush_written(self) -> None:
        # in this order: it counts as clean before the publisher has it
        if not self._clean or self._sending:
            super().flush()

    def _flush(self) -> None:
        self._held = 0
        self._sending = self._clean = True
        try:
            super()._flush()
        finally:
            self._sending = False

    # -- what programs write to the descriptor --------------------------------------------------------------------

    def _watch_pipe_fd(self) -> None:
        """The thread that takes in what is written while a cell runs, and after it."""
        written = select.poll()
        written.register(self._fid, select.POLLIN)
        while self._should_watch and self._fid is not None:
            written.poll()
            self.take_in()

    def take_in(self) -> None:
        """Take in what the pipe holds now: at most what fits into it, however much its writers have to say."""
        if not self._is_master_process():
            return
        with self._taking:
            if self._fid is None or not self._should_watch:
                return
            try:
                (waiting,) = struct.unpack("i", fcntl.ioctl(self._fid, termios.FIONREAD, b"\0" * 4))
                if waiting:
                    content = os.read(self._fid, waiting)
                    self.write(self._decoder.decode(content))
                    os.write(self._original_stdstream_copy, content)
            except OSError:
                self._fid = None  # code has closed it
