"""PID 1 of a session's container: starts the kernel, reaps children, restarts and signals the kernel on request.

It listens on ``supervisor.sock`` in the runtime directory and speaks lines of JSON: a request is
``{"id": n, "op": ...}``, an answer ``{"id": n, ...}``. A connection that asked to ``attach`` also gets an event for
each change of the kernel (see FRAMES.md, EVENT). Standard library only, one thread, no polling but one look a minute
at whether the session is idle.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from processes import descendants, memory_use, oom_kill_count

MAX_LINE = 65536
LAST_WORDS = 4096  # bytes kept of what the kernel's process wrote to its own stdout and stderr
KILL_SECONDS = 3.0  # how long killing everything may take before the container is given up
IDLE_LOOK = 60.0
DEAD_SECONDS = 120.0  # how long a container without a kernel, and with nobody attached, is kept for whoever comes next
TURN_SECONDS = 2.0  # how long a client that runs nothing may sit on the turn while another waits
KERNEL = str(Path(__file__).with_name("launch_kernel.py"))
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
PR_SET_CHILD_SUBREAPER = 36


class Client:
    """One connection to the control socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = b""
        self.attached = False
        self.waiting: object = None  # the id of its request for the turn, while another client has it
        self.waiting_since = 0.0


class Supervisor:
    """The state of one container: one kernel at a time, and who is connected."""

    def __init__(self, runtime: Path, workspace: Path, idle_timeout: float) -> None:
        self.runtime = runtime
        self.workspace = workspace
        self.idle_timeout = idle_timeout
        self.started = time.time()
        self.last_attached = self.started
        self.selector = selectors.DefaultSelector()
        self.clients: dict[socket.socket, Client] = {}
        self.key = secrets.token_hex(32)
        self.connection_file = runtime / "kernel.json"
        self.activity = runtime / "activity"
        self.pid = 0
        self.generation = 0
        self.state: dict[str, Any] = {"event": "kernel", "state": "starting", "generation": 0}
        self.restarting = False
        self.ready_fd = -1
        self.output_fd = -1
        self.last_words = b""
        self.oom_kills = 0
        self.turn: Client | None = None  # whose cells may run; a client keeps it until another asks
        self.turn_wanted = 0.0  # since when another has asked

    # -- life -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to shut down or idle for too long; the exit code of the container."""
        if os.getpid() != 1:
            # outside a container orphans must still come to us, or a kill would miss them
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.write_connection_file()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.stopping = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        listener = self.listen()
        self.selector.register(wake_read, selectors.EVENT_READ, self.drain_wakeups)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.start_kernel()
        while not self.stopping:
            pause = TURN_SECONDS if self.turn_wanted else min(IDLE_LOOK, self.idle_timeout)
            for key, _ in self.selector.select(pause):
                # an earlier event of this wake-up may have closed it, and given its number to another
                if self.selector.get_map().get(key.fd) is key:
                    key.data(key.fileobj)
            self.reap()
            self.revoke_turn()
            if self.is_abandoned():
                break
        self.kill_all()
        return 0

    def listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = self.runtime / "supervisor.sock"
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def write_connection_file(self) -> None:
        ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}
        info = {
            "transport": "ipc",
            "ip": str(self.runtime / "kernel"),
            "key": self.key,
            "signature_scheme": "hmac-sha256",
            "kernel_name": "python3",
            **ports,
        }
        descriptor = os.open(self.connection_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(info, file)

    def is_abandoned(self) -> bool:
        """Whether for the idle time nobody was attached and no cell ran; without a kernel it takes less."""
        if any(client.attached for client in self.clients.values()) or self.busy():
            return False
        idle = time.time() - max(self.last_activity(), self.last_attached)
        return idle > (self.idle_timeout if self.pid else min(self.idle_timeout, DEAD_SECONDS))

    # -- the kernel -------------------------------------------------------------------------------------------

    def start_kernel(self) -> None:
        for number in range(1, len(CHANNELS) + 1):
            (self.runtime / f"kernel-{number}").unlink(missing_ok=True)
        if not self.connection_file.exists():
            self.write_connection_file()  # the code that ran may have removed it
        self.generation += 1
        self.last_words = b""
        self.oom_kills = oom_kill_count()
        ready_read, ready_write = os.pipe()
        output_read, output_write = os.pipe()
        os.set_blocking(output_read, False)
        os.set_inheritable(ready_write, True)
        environment = dict(os.environ)
        if os.getpid() != 1:
            environment["JPY_PARENT_PID"] = str(os.getpid())
        os.chdir(self.workspace)
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, KERNEL, str(self.connection_file), str(ready_write), str(self.activity)],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output_write, 1),
                (os.POSIX_SPAWN_DUP2, output_write, 2),
            ],
            setpgroup=0,
            setsigdef=[signal.SIGINT, signal.SIGCHLD, signal.SIGTERM],
        )
        os.chdir("/")
        # the kernel, not this process, is what the kernel of the host should end when memory runs out
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("1000")
        os.close(ready_write)
        os.close(output_write)
        self.ready_fd, self.output_fd = ready_read, output_read
        self.selector.register(ready_read, selectors.EVENT_READ, self.on_ready)
        self.selector.register(output_read, selectors.EVENT_READ, self.on_output)
        self.announce({"state": "starting"})

    def on_ready(self, descriptor: Any) -> None:
        """The kernel wrote that its sockets are bound, or ended without."""
        is_ready = os.read(descriptor, 1) == b"1"
        self.selector.unregister(descriptor)
        os.close(descriptor)
        self.ready_fd = -1
        if is_ready:
            self.announce({"state": "ready"})

    def on_output(self, descriptor: Any) -> None:
        """Keep the end of what the kernel's process itself writes: it says why a start failed."""
        with contextlib.suppress(BlockingIOError):
            words = os.read(descriptor, 65536)
            self.last_words = (self.last_words + words)[-LAST_WORDS:]
            if not words:
                self.forget_output()

    def forget_output(self) -> None:
        if self.output_fd >= 0:
            self.selector.unregister(self.output_fd)
            os.close(self.output_fd)
            self.output_fd = -1

    def reap(self) -> None:
        """Collect every child that ended; learn why the kernel did."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.on_kernel_end(status)

    def on_kernel_end(self, status: int) -> None:
        self.pid = 0
        self.kill_all()  # what the kernel started does not outlive it
        if self.output_fd >= 0:
            self.on_output(self.output_fd)
        self.forget_output()
        if self.ready_fd >= 0:
            self.selector.unregister(self.ready_fd)
            os.close(self.ready_fd)
            self.ready_fd = -1
        with contextlib.suppress(OSError):
            self.activity.write_bytes(b"I{}")
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self.announce(
            {
                "state": "dead",
                "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                "signal": killed_by,
                "out_of_memory": killed_by == signal.SIGKILL and oom_kill_count() > self.oom_kills,
                "last_words": self.last_words.decode(errors="replace"),
            }
        )
        if self.restarting:
            self.restarting = False
            self.start_kernel()

    def kill_all(self) -> None:
        """SIGKILL every process that came from this one: the kernel, what it started, and what those left behind."""
        deadline = time.monotonic() + KILL_SECONDS
        while pids := descendants(os.getpid()):
            for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: a fork bomb must not outrun us
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            for pid in pids:
                with contextlib.suppress(ChildProcessError):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended == self.pid and ended:
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

    def busy(self) -> bool:
        try:
            return self.activity.read_bytes()[:1] == b"B"
        except OSError:
            return False

    def last_cell(self) -> object:
        """What the kernel recorded of the last cell that ended (see launch_kernel.record_activity)."""
        try:
            return json.loads(self.activity.read_bytes()[1:16384])
        except (OSError, ValueError, RecursionError):
            return {}

    def last_activity(self) -> float:
        try:
            return self.activity.stat().st_mtime
        except OSError:
            return self.started

    # -- requests ---------------------------------------------------------------------------------------------

    def accept(self, listener: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            self.clients[connection] = Client(connection)
            self.selector.register(connection, selectors.EVENT_READ, self.on_request)

    def on_request(self, connection: Any) -> None:
        client = self.clients[connection]
        try:
            received = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        client.buffer += received
        if not received or len(client.buffer) > MAX_LINE:
            self.drop(client)
            return
        *lines, client.buffer = client.buffer.split(b"\n")
        for line in lines:
            try:
                request = json.loads(line)
                fields = self.answer(client, request)
                if fields is None:
                    continue
                answer = {"id": request["id"], **fields}
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                answer = {"id": None, "error": f"bad request: {error!r}"[:500]}
            self.send(client, answer)
            if client.connection not in self.clients:
                return  # it was dropped: what else it asked for must not be given to it

    def answer(self, client: Client, request: dict[str, Any]) -> dict[str, Any] | None:
        """The fields of an answer; None where it comes later."""
        match request["op"]:
            case "attach":
                client.attached = True
                info = json.loads(self.connection_file.read_bytes()) if self.connection_file.exists() else {}
                return {"connection": {**info, "key": self.key}, "kernel": self.state}
            case "acquire":
                return self.acquire(client, request["id"])
            case "release":
                self.release(client)
                return {}
            case "status":
                return {
                    "kernel": self.state,
                    "busy": self.busy(),
                    "last_cell": self.last_cell(),
                    "idle": max(0.0, time.time() - self.last_activity()),
                    "age": time.time() - self.started,
                    "memory": memory_use(),
                    "attached": sum(other.attached for other in self.clients.values()),
                }
            case "interrupt":
                if self.pid:
                    try:
                        os.killpg(self.pid, signal.SIGINT)
                    except ProcessLookupError:  # the code has moved the kernel to another group
                        os.kill(self.pid, signal.SIGINT)
                return {}
            case "restart":
                if self.pid:
                    self.restarting = True
                    self.kill_all()
                    self.wait_for_kernel_end()
                else:
                    self.start_kernel()
                return {}
            case "shutdown":
                self.stopping = True
                return {}
            case other:
                return {"error": f"unknown op {other!r}"[:200]}

    def acquire(self, client: Client, request: object) -> dict[str, Any] | None:
        """Give the turn to run cells, now or when it is free; tell who has it that it is wanted."""
        if self.turn is None or self.turn is client:
            self.turn = client
            return {}
        if client.waiting is None:
            client.waiting_since = time.monotonic()
        client.waiting = request
        self.turn_wanted = self.turn_wanted or time.monotonic()
        self.send(self.turn, {"event": "turn wanted"})
        return None

    def revoke_turn(self) -> None:
        """Take the turn from a client that keeps it though it runs nothing: its program is stopped, or stuck."""
        if self.turn_wanted and not self.busy() and time.monotonic() - self.turn_wanted > TURN_SECONDS and self.turn:
            self.send(self.turn, {"event": "turn lost"})
            if self.turn:
                self.release(self.turn)

    def release(self, client: Client) -> None:
        """The turn, or the wait for it, is given up; whoever has waited longest gets it."""
        client.waiting = None
        if self.turn is client:
            self.turn, self.turn_wanted = None, 0.0
            waiting = [other for other in self.clients.values() if other.waiting is not None]
            waiting.sort(key=lambda other: other.waiting_since)
            if waiting:
                self.turn, request = waiting[0], waiting[0].waiting
                self.turn.waiting = None
                self.send(self.turn, {"id": request})
                if len(waiting) > 1 and self.turn is not None:
                    self.turn_wanted = time.monotonic()
                    self.send(self.turn, {"event": "turn wanted"})

    def announce(self, change: dict[str, Any]) -> None:
        self.state = {"event": "kernel", "generation": self.generation, **change}
        for client in list(self.clients.values()):
            if client.attached:
                self.send(client, self.state)

    def send(self, client: Client, message: dict[str, Any]) -> None:
        # a relay always reads; one that does not is broken, and is dropped rather than waited for
        try:
            client.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.drop(client)

    def drop(self, client: Client) -> None:
        if self.clients.pop(client.connection, None):
            self.selector.unregister(client.connection)
            client.connection.close()
            if client.attached:
                self.last_attached = time.time()
            self.release(client)

    def drain_wakeups(self, descriptor: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(descriptor, 4096):
                pass


def main() -> int:
    """``supervisor.py RUNTIME_DIR WORKSPACE IDLE_SECONDS``"""
    runtime, workspace, idle_timeout = sys.argv[1:]
    return Supervisor(Path(runtime), Path(workspace), float(idle_timeout)).run()


if __name__ == "__main__":
    sys.exit(main())
