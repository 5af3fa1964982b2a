"""Starts the IPython kernel, set up for a sandbox session.

``launch_kernel.py CONNECTION_FILE READY_FD ACTIVITY_FILE``, run by the supervisor.

What differs from a plain ``ipykernel_launcher``:

- output is never dropped: a full publisher makes the code that prints wait, instead of throwing messages away, and
  what waits in this process is bounded;
- one ``print`` of any size becomes messages of at most a few megabytes;
- no history database, a small output cache, plots inline;
- what a thread prints belongs to the cell that started it;
- the supervisor hears when the sockets are bound, and can see when a cell ran last.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq
from ipykernel.iostream import IOPubThread, OutStream
from ipykernel.kernelapp import IPKernelApp
from ipykernel.thread import BaseThread
from traitlets.config import Config

PUBLISH_QUEUE = 1000  # messages that may wait for the publishing thread before a printing cell waits too
PUBLISHED = 64  # messages that may wait on the way to one client
STREAM_CHUNK = 1 << 18  # characters of one stream message, and of what a stream may hold back
OUTPUT_CACHE = 20  # results that Out[] keeps alive


class WaitingIOPubThread(IOPubThread):
    """Publishes as ipykernel does, but makes the producer wait when it is far ahead.

    ipykernel's own queue has no bound, so a cell that prints faster than the wire carries would fill this
    process's memory, and be killed for it.
    """

    def schedule(self, f: Callable[..., Any]) -> None:
        # ipykernel's own threads must not wait here: the control thread answers interrupts during a flood
        producer = threading.current_thread()
        if producer is not self.thread and not isinstance(producer, BaseThread) and self.thread.is_alive():
            while len(self._events) > PUBLISH_QUEUE and self.thread.is_alive():
                time.sleep(0.001)
        super().schedule(f)


class BoundedOutStream(OutStream):
    """A stdout or stderr that holds back at most ``STREAM_CHUNK`` characters before it waits for the publisher."""

    _held = 0

    def write(self, string: str) -> int | None:
        if not isinstance(string, str) or len(string) <= STREAM_CHUNK:
            return self._write_chunk(string)
        for start in range(0, len(string), STREAM_CHUNK):
            self._write_chunk(string[start : start + STREAM_CHUNK])
        return len(string)

    def _write_chunk(self, chunk: str) -> int | None:
        written = super().write(chunk)
        self._held += len(chunk)
        if self._held > STREAM_CHUNK:
            self.flush()
        return written

    def _flush(self) -> None:
        self._held = 0
        super()._flush()


class SandboxKernelApp(IPKernelApp):
    """ipykernel's application with a publisher that waits instead of dropping."""

    def _bind_socket(self, s: Any, port: int) -> Any:
        if s.type == zmq.XPUB:
            s.setsockopt(zmq.XPUB_NODROP, 1)
            s.setsockopt(zmq.SNDHWM, PUBLISHED)
        return super()._bind_socket(s, port)

    def init_iopub(self, context: Any) -> None:
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self.iopub_port = self._bind_socket(self.iopub_socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = WaitingIOPubThread(self.iopub_socket, pipe=True, session=self.session)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket


def configuration() -> Config:
    """The kernel's configuration: no history database, a small output cache, nothing asked of a terminal."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.cache_size = OUTPUT_CACHE
    config.SandboxKernelApp.outstream_class = f"{__name__}.BoundedOutStream"
    config.Completer.use_jedi = False
    return config


def record_activity(shell: Any, path: str) -> None:
    """Keep in ``path``: ``B`` while a cell runs, ``I`` after, and then JSON of how the last cell ended.

    Its modification time is the last change. A manager that lost the reply to a cell reads it there.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(descriptor, b"I{}")

    def ended(result: Any) -> None:
        error = result.error_before_exec or result.error_in_exec
        last = {"msg_id": shell.get_parent().get("header", {}).get("msg_id"), "ok": error is None}
        if error is not None:
            last |= {"ename": type(error).__name__[:200], "evalue": describe(error)}
        record = b"I" + json.dumps(last).encode()
        os.ftruncate(descriptor, os.pwrite(descriptor, record, 0))

    shell.events.register("pre_run_cell", lambda _info: os.pwrite(descriptor, b"B", 0))
    shell.events.register("post_run_cell", ended)


def print_into_starting_cell(shell: Any) -> None:
    """Make a thread's output belong to the cell that started it, rather than to whichever runs when it prints."""
    start = threading.Thread.start

    def start_with_parent(thread: threading.Thread) -> None:
        parent, run = shell.get_parent(), thread.run

        def run_with_parent() -> None:
            shell.set_thread_parent(parent)
            run()

        if not isinstance(thread, BaseThread):
            thread.run = run_with_parent  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = start_with_parent  # type: ignore[method-assign]


def describe(error: BaseException) -> str:
    """An exception's text, whatever its ``__str__`` does."""
    try:
        return str(error)[:1000]
    except Exception:
        return "(its text could not be had)"


def main() -> None:
    """Initialise the kernel, tell the supervisor, and serve until told to stop."""
    connection_file, ready, activity = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    # the workspace is where imports come from, as in a notebook; this script's own folder is not
    sys.path[0] = ""
    os.set_inheritable(ready, False)
    app = SandboxKernelApp.instance(config=configuration())
    app.initialize(["-f", connection_file])
    record_activity(app.shell, activity)
    print_into_starting_cell(app.shell)
    os.write(ready, b"1")
    os.close(ready)
    app.start()


if __name__ == "__main__":
    main()
