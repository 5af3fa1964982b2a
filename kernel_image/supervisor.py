"""PID 1 of a session's container: starts the kernel, reaps children, restarts and signals the kernel on request.

It listens on ``supervisor.sock`` in the runtime directory and speaks lines of JSON: a request is
``{"id": n, "op": ...}``, an answer ``{"id": n, ...}``. A connection that asked to ``attach`` also gets an event for
each change of the kernel (see FRAMES.md, EVENT). Standard library only, one thread; it wakes up for what happens, and
when one of the session's limits may have passed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control_socket import Client, ControlSocket
from journal_file import JournalFile
from kernel_process import KernelProcess
from lifetime import Lifetime, read_record, write_record
from peers import keep_to_itself
from processes import descendants, memory_use
from runtime_files import clear, write_anew
from turns import Turns

KILL_SECONDS = 3.0  # how long killing everything may take before the container is given up
LONGEST_PAUSE = 60.0
COMMAND_GRACE = 5.0  # beyond its own time limit, for what can't be interrupted from inside
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
CONTROL_SOCKET = "supervisor.sock"
PR_SET_CHILD_SUBREAPER = 36


class Command:
    """Something that the kernel was told to do between cells: it counts as running until it is answered."""

    def __init__(self, number: int, deadline: float, done: Callable[[dict[str, Any]], None]) -> None:
        self.number = number
        self.deadline = deadline
        self.done = done


class Supervisor:
    """The state of one container: one kernel at a time, and who is connected.

    ``options``, all but the first optional: ``idle_timeout`` (seconds without a cell, with nobody attached, until the
    container ends itself), ``alone_timeout`` (the same whatever runs: nobody could come back to it), ``longest_cell``
    (seconds), ``save`` (``timeout``, ``max_bytes``: save variables before the end), ``restore`` (``timeout``),
    ``journal`` (``max_bytes``, ``image``), and what the kernel takes: ``preload``, ``replay_bytes``. ``pool``: it waits
    to become a session's. ``reap``: limits that are not this supervisor's to keep, but told to whoever asks for the
    status.
    """

    def __init__(self, runtime: Path, workspace: Path, options: dict[str, Any]) -> None:
        self.runtime = runtime
        self.workspace = workspace
        self.options = options
        self.selector = selectors.DefaultSelector()
        self.control = ControlSocket(self.selector, self.answer, self.on_drop)
        self.key = os.urandom(32).hex()  # as secrets does it, which would bring OpenSSL along
        self.kernel = KernelProcess(runtime, workspace, options, self.selector, self.on_ready, self.on_answer)
        self.lifetime = Lifetime(options, self.kernel)
        self.turns = Turns(self.working, self.control.send)
        self.generation = 0
        self.state: dict[str, Any] = {"event": "kernel", "state": "starting", "generation": 0}
        self.restarting = False
        self.stopping = False
        self.commands = 0
        self.command: Command | None = None
        self.held = False  # who has the turn keeps it though nothing runs
        self.told_before: dict[str, Any] = {}  # what whoever runs the first cell is told of the session before
        self.saved_at_end = False
        self.end_reason = ""

    # -- life -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to shut down or abandoned; the exit code of the container."""
        if os.getpid() != 1:
            # outside a container orphans must still come to us, or a kill would miss them
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        else:
            keep_to_itself()
        self.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        self.selector.register(wake_read, selectors.EVENT_READ, self.drain_wakeups)
        self.control.listen(self.runtime / CONTROL_SOCKET)
        if ended := read_record(self.workspace):
            self.told_before["ended"] = ended
        self.start_kernel()
        while not self.stopping:
            for key, _ in self.selector.select(self.pause()):
                # an earlier event of this wake-up may have closed it, and given its number to another
                if self.selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj)
            self.reap()
            self.turns.tick()
            if not self.stopping:  # who stops now must not begin to save, and be killed in the middle of it
                self.look_at_limits()
        if self.end_reason:
            write_record(self.workspace, self.end_reason, saved=self.saved_at_end)
        self.kill_all()
        return 0

    def pause(self) -> float:
        """Seconds until something may have to be done though nothing happens."""
        pauses = [LONGEST_PAUSE, self.turns.pause(), self.lifetime.pause()]
        if self.kernel.standby.pid:
            pauses.append(self.kernel.standby.until - time.monotonic())
        if self.command:
            pauses.append(self.command.deadline - time.monotonic())
        return max(0.0, min(pauses))

    def look_at_limits(self) -> None:
        """End what has run for too long, and the container when nobody comes any more."""
        if self.command and time.monotonic() > self.command.deadline:
            self.kernel.interrupt()
            self.finish_command({"error": "it took too long"})
        if time.monotonic() > self.kernel.standby.until:
            self.kernel.standby.discard()
        match self.lifetime.verdict(self.control.company() > 0, working=self.working()):
            case "interrupt":
                self.kernel.interrupt()
            case "restart":
                self.restart()
            case "alone":
                self.stopping = True
            case "idle":
                self.leave()

    def leave(self) -> None:
        """Nobody came for the idle time: save what can be saved, and end, unless somebody comes meanwhile."""

        def end(report: dict[str, Any]) -> None:
            if self.lifetime.verdict(self.control.company() > 0, working=self.kernel.busy()) == "idle":
                self.saved_at_end = "saved" in report
                self.end_reason, self.stopping = "idle", True

        if not self.save("idle", end):
            end({})

    def connection_info(self) -> dict[str, Any]:
        """Jupyter's, of the kernel's sockets in here."""
        ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}
        return {
            "transport": "ipc",
            "ip": str(self.runtime / "kernel"),
            "key": self.key,
            "signature_scheme": "hmac-sha256",
            "kernel_name": "python3",
            **ports,
        }

    # -- the kernel -------------------------------------------------------------------------------------------

    def start_kernel(self) -> None:
        # the code that ran may have changed what is there, or left no room
        clear(self.runtime, keep=CONTROL_SOCKET)
        write_anew(self.kernel.connection_file, json.dumps(self.connection_info()).encode())
        self.generation += 1
        self.kernel.start(first=self.generation == 1)
        self.announce({"state": "starting"})

    def on_ready(self) -> None:
        """The kernel's sockets are bound. The first kernel of a container gets the session's saved variables first."""
        restore = self.options.get("restore") if self.generation == 1 else None
        saved = bool(restore) and self.lifetime.has_saved_variables(self.workspace)
        if restore and saved and restore.get("given_up"):
            self.told_before["restore"] = {"error": "containers ended as they restored them"}
        if restore and saved and not restore.get("given_up"):
            self.tell(self.restored, "restore", timeout=restore["timeout"])
        else:
            self.announce({"state": "ready"})

    def restored(self, report: dict[str, Any]) -> None:
        self.told_before["restore"] = report
        if "error" in report:
            self.restart()  # what it was at may go on, and would meet the next cell
        else:
            self.announce({"state": "ready"})

    def save(self, reason: str, done: Callable[[dict[str, Any]], None]) -> bool:
        """Have the kernel save its variables, where that is wanted and can be; whether it was told to."""
        limits = self.options.get("save")
        return bool(limits) and self.tell(done, "save", reason=reason, **limits)

    def tell(self, done: Callable[[dict[str, Any]], None], op: str, *, timeout: float, **fields: Any) -> bool:
        """Have the kernel do something between cells; ``done`` gets its report, with ``error`` where it failed."""
        if self.command or not self.kernel.pid:
            return False
        self.commands += 1
        if not self.kernel.command(id=self.commands, op=op, timeout=timeout, **fields):
            return False
        self.command = Command(self.commands, time.monotonic() + timeout + COMMAND_GRACE, done)
        return True

    def on_answer(self, answer: dict[str, Any]) -> None:
        if self.command and answer.get("id") == self.command.number:
            answer.pop("id")
            self.finish_command(answer)

    def finish_command(self, report: dict[str, Any]) -> None:
        if self.command:
            done, self.command = self.command.done, None
            done(report)

    def working(self) -> bool:
        """Whether a cell runs, or something else for which no cell may begin."""
        return self.command is not None or self.held or self.kernel.busy()

    def reap(self) -> None:
        """Collect every child that ended; learn why the kernel did."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.kernel.standby.ended(pid)
            if pid == self.kernel.pid:
                self.on_kernel_end(status)

    def on_kernel_end(self, status: int) -> None:
        self.kernel.pid = 0
        self.kill_all()  # what the kernel started does not outlive it
        death = self.kernel.ended(status)
        self.write_into_journal(death)
        if not self.stopping:  # else it is the session that ends, which whoever is attached learns as we go
            self.announce(death)
        if self.command:
            command, self.command = self.command, None
            if command.done == self.restored:
                self.told_before["restore"] = {"error": "Python ended as it restored them"}
                self.restarting = True
            else:
                command.done({"error": "Python ended"})
        if self.restarting:
            self.restarting = False
            self.start_kernel()

    def write_into_journal(self, death: dict[str, Any]) -> None:
        """The kernel could not write its own end."""
        if keeping := self.options.get("journal"):
            fields = {name: death[name] for name in ("signal", "exit_code", "out_of_memory")}
            asked = self.restarting or self.stopping
            file = JournalFile(self.workspace, keeping["max_bytes"])
            file.append(event="death", at=time.time(), asked=asked, **fields)
            file.close()

    def restart(self) -> None:
        """Kill the kernel and all it started; start a new one."""
        if self.kernel.pid:
            self.restarting = True
            self.kill_all()
            self.wait_for_kernel_end()
        else:
            self.start_kernel()

    def kill_all(self) -> None:
        """SIGKILL every process that came from this one: the kernel, what it started, and what those left behind.

        A Python that waits to become the next kernel is spared where there is to be one.
        """
        deadline = time.monotonic() + KILL_SECONDS
        if not self.restarting:
            self.kernel.standby.discard()
        while pids := [pid for pid in descendants(os.getpid()) if pid != self.kernel.standby.pid]:
            for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: a fork bomb must not outrun us
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            for pid in pids:
                with contextlib.suppress(ChildProcessError):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended == self.kernel.pid and ended:
                        self.on_kernel_end(status)
                        return
            if time.monotonic() > deadline:
                if os.getpid() == 1:
                    os.kill(-1, signal.SIGKILL)  # relays too: they come back
                return
            time.sleep(0.005)

    def wait_for_kernel_end(self) -> None:
        """Reap a killed kernel, which takes until its last thread is gone: a zombie before that can't be waited for.

        Whoever asked for a restart must not take the old kernel, still announced as ready, for the new one.
        """
        deadline = time.monotonic() + KILL_SECONDS
        while self.restarting and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.002)

    # -- requests ---------------------------------------------------------------------------------------------

    def answer(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        """The fields of an answer; None where it comes later."""
        match request["op"]:
            case "attach":
                client.attached = True
                client.observes = request.get("observe") is True
                waits = self.options.get("pool") is True
                return {"connection": self.connection_info(), "kernel": self.state, "unclaimed": waits}
            case "acquire":
                return self.turns.acquire(client, request["id"])
            case "release":
                self.let_go(client)
                return {}
            case "hold":
                if self.turns.holder is not client:
                    return {"error": "it is not this client's turn"}
                self.held = request["on"] is True
                return {}
            case "status":
                return self.status()
            case "before":
                told, self.told_before = self.told_before, {}
                return told
            case "interrupt":
                running = self.kernel.running()
                if "cell" in request and (running is None or running["msg_id"] != request["cell"]):
                    return {"interrupted": False}
                self.kernel.interrupt()
                if seconds := request.get("standby"):
                    self.kernel.stand_by(float(seconds))
                return {"interrupted": running is not None}
            case "restart":
                self.restart()
                return {}
            case "save":
                return self.save_for(client, request)
            case "claim":
                seconds = request["alone_timeout"]
                self.lifetime.claim(None if seconds is None else float(seconds))
                self.options["pool"] = False
                if seconds is not None:
                    self.options["save"] = None
                return {}
            case "keep":
                self.lifetime.keep(float(request["idle_timeout"]) + float(request["margin"]))
                self.options["reap"] = {**(self.options.get("reap") or {}), "idle_timeout": request["idle_timeout"]}
                return {}
            case "shutdown":
                if request.get("turn") and self.turns.holder is not client:
                    return {"error": "it is not this client's turn"}
                self.end_reason = str(request.get("reason", ""))[:200]
                self.saved_at_end = request.get("saved") is True
                self.stopping = True
                return {}
            case other:
                return {"error": f"unknown op {other!r}"[:200]}

    def status(self) -> dict[str, Any]:
        """What there is to know of the session."""
        return {
            "kernel": self.state,
            "busy": self.working(),
            "running": self.kernel.running(),
            "last_cell": self.kernel.cell(),
            "idle": self.lifetime.idle(),
            "age": time.time() - self.lifetime.started,
            "memory": memory_use(),
            "reap": self.options.get("reap"),
            "attached": self.control.company(),
        }

    def save_for(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        """Save variables for a client that has the turn, so that no cell runs meanwhile."""
        if self.turns.holder is not client:
            return {"error": "it is not this client's turn"}
        number = request["id"]
        limits = {"timeout": float(request["seconds"]), "max_bytes": int(request["max_bytes"])}
        reason = str(request.get("reason", ""))[:200]

        def done(report: dict[str, Any]) -> None:
            self.control.send(client, {"id": number, "report": report})

        if self.tell(done, "save", reason=reason, **limits):
            return None
        return {"error": "Python does not run"}

    def announce(self, change: dict[str, Any]) -> None:
        self.state = {"event": "kernel", "generation": self.generation, **change}
        self.control.tell_attached(self.state)

    def on_drop(self, client: Client) -> None:
        """A client is gone."""
        if client.attached and not client.observes:
            self.lifetime.last_company = time.time()
        self.let_go(client)

    def let_go(self, client: Client) -> None:
        """A client gives up the turn, or the wait for it."""
        if self.turns.holder is client:
            self.held = False
        self.turns.release(client)

    def drain_wakeups(self, descriptor: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(descriptor, 4096):
                pass


def main() -> int:
    """``supervisor.py RUNTIME_DIR WORKSPACE OPTIONS``, the options as a JSON object."""
    runtime, workspace, options = sys.argv[1:]
    return Supervisor(Path(runtime), Path(workspace), json.loads(options)).run()


if __name__ == "__main__":
    sys.exit(main())
