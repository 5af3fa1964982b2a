"""Starts the IPython kernel, set up for a sandbox session.

``launch_kernel.py CONNECTION_FILE CHANNEL_FD ACTIVITY_FILE OPTIONS``, run by the supervisor; the options are JSON. The
channel is a socket: a ``1`` goes out when the kernel's sockets are bound; then lines of JSON, commands and answers.
With the option ``standby`` it first waits for a byte, before it makes anything that the kernel before it still uses.

What differs from a plain ``ipykernel_launcher``:

- output is never dropped: a full publisher makes the code that prints wait, instead of throwing messages away, and
  what waits in this process is bounded;
- one ``print`` of any size becomes messages of at most a few megabytes;
- no history database, a small output cache, nothing that was put out is kept otherwise, plots inline;
- what a thread prints belongs to the cell that started it;
- the last output is kept, for a program that was away when it was published;
- each cell is written to the session's journal as it runs;
- the supervisor hears when the sockets are bound, can see what runs, and can have variables saved between cells.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp
from ipykernel.thread import BaseThread
from traitlets.config import Config

# as a package: no module of ours may take the name of one that the user writes
sys.path[0] = str(Path(__file__).resolve().parents[1])

from kernel_image.journal import Journal  # noqa: E402
from kernel_image.kept_output import KeptOutput  # noqa: E402
from kernel_image.publishing import WaitingIOPubThread  # noqa: E402
from kernel_image.sandbox_kernel import Commands, SandboxKernel, describe  # noqa: E402
from kernel_image.workspace_look import WorkspaceLook  # noqa: E402

PUBLISHED = 64  # messages that may wait on the way to one client
OUTPUT_CACHE = 20  # results that Out[] keeps alive
REPLAY_BYTES = 4 << 20  # output that is kept, where nobody says how much


class SandboxKernelApp(IPKernelApp):
    """ipykernel's application with a publisher that waits instead of dropping, and keeps the last output."""

    kept_output: KeptOutput

    def _bind_socket(self, s: Any, port: int) -> Any:
        if s.type == zmq.XPUB:
            s.setsockopt(zmq.XPUB_NODROP, 1)
            s.setsockopt(zmq.SNDHWM, PUBLISHED)
        return super()._bind_socket(s, port)

    def _run_startup_files(self) -> None:
        """None: code in a cell could put some there that end every Python of its container as it starts."""

    def init_iopub(self, context: Any) -> None:
        self.iopub_socket = context.socket(zmq.XPUB)
        self.iopub_socket.linger = 1000
        self.iopub_port = self._bind_socket(self.iopub_socket, self.iopub_port)
        self.configure_tornado_logger()
        self.iopub_thread = WaitingIOPubThread(self.iopub_socket, pipe=True, session=self.session)
        self.iopub_thread.kept_output = self.kept_output
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket


class NoOutputs(dict[int, list[Any]]):
    """What IPython remembers each cell's output in, for its magic %notebook: all that was ever printed or shown.

    The session's journal has that, with a bound.
    """

    def __missing__(self, _cell: int) -> list[Any]:
        return []


def configuration() -> Config:
    """The kernel's configuration: no history database, a small output cache, nothing asked of a terminal."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.cache_size = OUTPUT_CACHE
    config.SandboxKernelApp.kernel_class = SandboxKernel
    config.SandboxKernelApp.outstream_class = "kernel_image.publishing.BoundedOutStream"
    config.Completer.use_jedi = False
    # that Out[] keeps few results is nothing for the cell that makes it forget one
    warnings.filterwarnings("ignore", message="Output cache limit", module="IPython")
    return config


def record_activity(shell: Any, path: str) -> None:
    """Keep in ``path``: ``B`` and JSON of the cell that runs, or ``I`` and JSON of how the last cell ended.

    Its modification time is the last change. A manager that lost the reply to a cell reads it there.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def write(state: bytes, cell: dict[str, Any]) -> None:
        record = state + json.dumps(cell).encode() + b"\n"
        # the line's end ends the record: what an older, longer one leaves behind is never read
        os.ftruncate(descriptor, os.pwrite(descriptor, record, 0))

    def msg_id() -> object:
        return shell.get_parent().get("header", {}).get("msg_id")

    def ended(result: Any) -> None:
        error = result.error_before_exec or result.error_in_exec
        last: dict[str, Any] = {"msg_id": msg_id(), "ok": error is None}
        if error is not None:
            last |= {"ename": type(error).__name__[:200], "evalue": describe(error)}
        write(b"I", last)

    write(b"I", {})
    shell.events.register("pre_run_cell", lambda _info: write(b"B", {"msg_id": msg_id()}))
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


def preload(modules: list[str]) -> None:
    """Import modules ahead of need, where the image has them. One that fails is left to the cell that wants it."""
    for module in modules:
        with contextlib.suppress(Exception):
            if importlib.util.find_spec(module.partition(".")[0]) is not None:
                importlib.import_module(module)


def find_installed_packages() -> None:
    """Let cells import what pip has installed, in this session or an earlier one of its key.

    After all else: what somebody installs must not keep the next kernel from starting. The folder has to exist, or
    Python would remember that it does not.
    """
    if packages := os.environ.get("PIP_TARGET"):
        with contextlib.suppress(OSError):
            Path(packages).mkdir(parents=True, exist_ok=True)
        sys.path.append(packages)
        os.environ.setdefault("PYTHONPATH", packages)  # of programs that cells start


def main() -> None:
    """Initialise the kernel, tell the supervisor, and serve until told to stop."""
    connection_file, activity, options = sys.argv[1], sys.argv[3], json.loads(sys.argv[4])
    channel = socket.socket(fileno=int(sys.argv[2]))
    if options.get("standby") and not channel.recv(1):  # until the kernel before this one is gone
        return
    channel.set_inheritable(False)
    workspace = Path.cwd()
    # the workspace is where imports come from, as in a notebook; this package's folder is not
    sys.path[0] = ""
    find_installed_packages()
    # they are nothing that the code in cells asked for
    del sys.argv[1:]
    SandboxKernelApp.kept_output = SandboxKernel.kept_output = KeptOutput(options.get("replay_bytes", REPLAY_BYTES))
    SandboxKernel.workspace = WorkspaceLook(workspace)
    if keeping := options.get("journal"):
        journal = Journal(workspace, keeping["max_bytes"], keeping["image"])
        WaitingIOPubThread.journal = SandboxKernel.journal = journal
    app = SandboxKernelApp.instance(config=configuration())
    app.initialize(["-f", connection_file])
    app.log.setLevel(app.log_level)  # it makes records of all levels otherwise, six for each cell, for nobody
    app.shell.history_manager.outputs = NoOutputs()
    record_activity(app.shell, activity)
    print_into_starting_cell(app.shell)
    preload(options.get("preload", []))
    Commands(channel, app.kernel, workspace).listen()
    channel.sendall(b"1")
    app.start()


if __name__ == "__main__":
    main()
