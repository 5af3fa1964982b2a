"""A supervisor as a process of its own, asked over its socket. Most tests give it a kernel of a few lines."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import session_manager

KERNEL_IMAGE = Path(session_manager.__file__).parents[1] / "kernel_image"
PATIENCE = 30.0
SHORT = 0.3
"""The turn's time limit here, in seconds."""

MODULES = (
    *("supervisor", "control_socket", "journal_file", "kernel_process", "kernel_python"),
    *("lifetime", "peers", "processes", "runtime_files", "turns"),
)
"""What the supervisor is made of."""

STAND_IN = """
import json, os, signal, socket, sys, time
from pathlib import Path

connection_file, channel_descriptor, activity, options = sys.argv[1:5]
channel = socket.socket(fileno=int(channel_descriptor))
commands = map(json.loads, channel.makefile("rb"))

def ready():
    channel.sendall(b"1")

def answer(command, **report):
    channel.sendall(json.dumps({"id": command["id"], **report}).encode() + b"\\n")

def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.005)

if json.loads(options).get("standby"):
    Path("standby").write_text(str(os.getpid()))
    if not channel.recv(1):
        sys.exit()
Path("pid").write_text(str(os.getpid()))
exec(Path("code.py").read_text())
"""
"""A kernel's beginning; what it does next is in the workspace."""

WAITING = "ready()\nwhile True: time.sleep(60)"

BUSY = 'Path(activity).write_text(\'B{"msg_id": "m"}\' + chr(10))\n' + WAITING
"""A cell runs from the beginning."""

OBEDIENT = """
ready()
for command in commands:
    with open("told", "a") as told: told.write(json.dumps(command) + chr(10))
    wait_for("may answer")
    answer(command, **json.loads(Path("may answer").read_text()))
"""
"""It answers each command with what a file holds, once that is there."""

INTERRUPTIBLE = """
def note(number, frame):
    with open("interrupted", "a") as file: file.write(f"{os.getpid()} ")
signal.signal(signal.SIGINT, note)
"""
"""It notes each interrupt."""

DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path("daemon.new").write_text(str(os.getpid()))
        os.rename("daemon.new", "daemon")
        while True: time.sleep(60)
    os._exit(0)
os.wait()
wait_for("daemon")
"""
"""A process that leaves the kernel's session and outlives its parent."""

START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import kernel_python, lifetime, supervisor, turns
{changes}
sys.exit(supervisor.main())
"""

Fields = Mapping[str, Any]


class Control:
    """One connection to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self.lines = self.socket.makefile("rb")
        self.events: list[Fields] = []
        self.ids = itertools.count(1)
        self.last = 0

    def close(self) -> None:
        self.lines.close()
        self.socket.close()

    def send(self, line: bytes) -> None:
        self.socket.sendall(line + b"\n")

    def ask(self, op: str, **fields: object) -> int:
        """Send a request; its id."""
        self.last = number = next(self.ids)
        self.send(json.dumps({"id": number, "op": op, **fields}).encode())
        return number

    def line(self) -> Fields:
        line = self.lines.readline()
        assert line, "the supervisor closed the connection"
        fields: Fields = json.loads(line)
        return fields

    def answer(self, number: int | None) -> Fields:
        """The answer to a request; events that come before it are kept."""
        while True:
            fields = self.line()
            if "event" not in fields:
                assert fields["id"] == number
                return fields
            self.events.append(fields)

    def request(self, op: str, **fields: object) -> Fields:
        return self.answer(self.ask(op, **fields))

    def event(self, **expected: object) -> Fields:
        """The next event, or the next that was kept, in which all this is so."""
        while True:
            fields = self.events.pop(0) if self.events else self.line()
            if expected.items() <= fields.items():
                return fields

    def is_quiet(self, seconds: float) -> bool:
        """Whether nothing comes for a while."""
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)


class Supervised:
    """A supervisor, its directories, and its clients. ``changes``: what its modules have otherwise here, as Python."""

    def __init__(
        self, directory: Path, program: Path, options: Fields, changes: Mapping[str, float | str] | None = None
    ) -> None:
        self.runtime, self.workspace = directory / "run", directory / "files"
        self.workspace.mkdir(exist_ok=True)
        self.log = (directory / "log").open("ab")
        changed = {"turns.TURN_SECONDS": SHORT, **(changes or {})}
        code = START.format(changes="\n".join(f"{name} = {value}" for name, value in changed.items()))
        arguments = [str(program), str(self.runtime), str(self.workspace), json.dumps(options)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.clients: list[Control] = []

    def client(self) -> Control:
        path = self.runtime / "supervisor.sock"
        deadline = time.monotonic() + PATIENCE
        connection = socket.socket(socket.AF_UNIX)
        self.clients.append(Control(connection))
        while connection.connect_ex(str(path)) != 0:
            assert time.monotonic() < deadline, "nothing listens"
            time.sleep(0.01)
        return self.clients[-1]

    def attached(self, *, observe: bool = False) -> Control:
        """A connection that hears of the kernel, which is ready."""
        client = self.client()
        if client.request("attach", observe=observe)["kernel"]["state"] != "ready":
            client.event(state="ready")
        return client

    def pid(self) -> int:
        return int((self.workspace / "pid").read_text())

    def record(self, state: str, *, ago: float = 0, **cell: object) -> None:
        """As if the kernel had noted this of a cell, so many seconds ago."""
        activity = self.runtime / "activity"
        # in one step: the supervisor may look at any time, and must not find an old cell that has begun just now
        new = activity.with_name("activity.new")
        new.write_text(f"{state}{json.dumps(cell)}\n")
        os.utime(new, (time.time() - ago,) * 2)
        new.replace(activity)

    def told(self) -> list[Fields]:
        """The commands that an obedient kernel was given."""
        file = self.workspace / "told"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def may_answer(self, **report: object) -> None:
        """What an obedient kernel says to the command that it was given, and to later ones."""
        new = self.workspace / "may answer.new"
        new.write_text(json.dumps(report))
        new.replace(self.workspace / "may answer")

    def ended(self) -> bool:
        """That it ends by itself, as it should."""
        return self.process.wait(PATIENCE) == 0

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


Start = Callable[..., Supervised]


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)
