"""Makes a machine that has no container engine able to run one, where that can be done without asking."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .debian import Progress, can_install, find_program, install_packages, search_path
from .engine.docker_host import DEFAULT_DOCKER_HOST, connect, find_docker_host, is_denied
from .errors import EngineError, EngineUnavailable
from .state_directory import exclusive, state_directory

NEEDED = {"dockerd": "docker.io", "iptables": "iptables"}
"""The programs that an engine needs here, and the packages that they come in."""
PID_FILE = Path("/var/run/docker.pid")
SYSTEMD = Path("/run/systemd/system")
YOUNG_SECONDS = 1.0  # how long another daemon may take from its start until it shows as one
START_SECONDS = 60.0
STOP_SECONDS = 30.0
PING_SECONDS = 10
LOOK_SECONDS = 0.1
LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class StartedEngine:
    """The record of a daemon that we started. A process id alone would be somebody else's one day."""

    pid: int
    start_time: int
    """Clock ticks from boot to the start of the process (proc(5), field 22 of stat)."""
    boot_id: str
    log: str


def ensure_engine(progress: Progress, docker_host: str | None = None) -> str:
    """The address of an engine that answers; one is installed and started where there is none and we can.

    We can on Debian and Ubuntu, as root, where no engine elsewhere was asked for. One that answers is left
    alone.

    :raises EngineUnavailable: none answers and none could be started; says what to do.
    :raises HostError: installing it failed.
    """
    host = find_docker_host(docker_host)
    try:
        connect(docker_host, timeout=PING_SECONDS).close()
    except EngineUnavailable as error:
        if error.__cause__ is not None and is_denied(error.__cause__):
            raise
        if host.url != DEFAULT_DOCKER_HOST:
            raise EngineUnavailable(
                f"{error.message.rstrip('.')} (named by {host.source}).",
                "Start it, or take that setting away to use the engine of this machine.",
            ) from error
        if not can_install():
            raise
    else:
        return host.url
    with exclusive("engine", lambda: progress("Waiting for another process that starts the engine")):
        start_engine(progress)
    return host.url


def stop_engine(progress: Progress) -> bool:
    """Stop the engine that :func:`ensure_engine` started on this machine; False where none of that kind runs.

    Any other engine is left alone. Containers end with their engine.

    :raises EngineError: it did not stop in half a minute.
    """
    with exclusive("engine", lambda: progress("Waiting for another process that starts the engine")):
        started = read_record()
        if started is None:
            return False
        with opened(started) as process:
            if process is not None:
                progress(f"Stopping the engine that was started here (process {started.pid})")
                signal.pidfd_send_signal(process, signal.SIGTERM)
                if not ended(process, STOP_SECONDS):
                    raise EngineError(
                        f"The engine (process {started.pid}) still runs {STOP_SECONDS:.0f} s after SIGTERM.",
                        f"Its log is {started.log}.",
                    )
        record_path().unlink()
        return process is not None


def start_engine(progress: Progress) -> None:
    """Install what is missing, start the daemon, wait until it answers. The caller holds the lock."""
    if answers():  # whoever held the lock before us has started it
        return
    progress(f"No container engine answers at {DEFAULT_DOCKER_HOST}; this is Debian or Ubuntu and we are root")
    if missing := [package for program, package in NEEDED.items() if find_program(program) is None]:
        progress(f"Installing {' and '.join(missing)} from the distribution")
        install_packages(missing, progress)
    if SYSTEMD.is_dir():
        # the package starts its own service; after that, running it is up to whoever administers this machine
        if not wait_until(answers, START_SECONDS if missing else 0):
            raise EngineUnavailable(
                "An engine is installed on this machine, but its service does not run.",
                "Start it: `systemctl start docker`.",
            )
        return
    if (pid := running_daemon()) is not None:
        progress(f"A daemon runs already (process {pid}); waiting for it to answer")
        if not wait_until(answers, START_SECONDS):
            raise EngineUnavailable(
                f"A Docker daemon runs (process {pid}), but does not answer at {DEFAULT_DOCKER_HOST}.",
                "Name the address that it listens on with DOCKER_HOST, or look at its log.",
            )
        return
    launch(progress)


def launch(progress: Progress) -> None:
    """Start dockerd in a session of its own and wait until it answers.

    :raises EngineUnavailable: it ended, or did not answer in time; carries the end of its log.
    """
    log = state_directory() / "dockerd.log"
    log.write_bytes(b"")
    progress(f"Starting the engine; its log is {log}")
    # a shell in between, so that the daemon is nobody's child here and holds none of our files open
    launched = subprocess.run(  # noqa: S603 - fixed text
        ["/bin/sh", "-c", 'setsid dockerd >>"$1" 2>&1 </dev/null & echo $!', "sh", str(log)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        cwd="/",
        env={**os.environ, "PATH": search_path()},
    )
    pid = int(launched.stdout)
    record = StartedEngine(pid, start_time(pid), boot_id(), str(log))
    record_path().write_text(json.dumps(asdict(record)))
    begun = time.monotonic()
    with opened(record) as process:
        if comes_up(process):
            progress(f"The engine answers after {time.monotonic() - begun:.1f} s")
            if process is None or ended(process, 0):  # another daemon was faster, and is not ours to stop
                record_path().unlink()
            return
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
            ended(process, STOP_SECONDS)
    record_path().unlink()
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    raise EngineUnavailable(
        f"The engine did not come up. The end of its log ({log}):\n" + "\n".join(f"  {line[:300]}" for line in lines),
        "An engine elsewhere is named with DOCKER_HOST; `--engine process` does without one, unprotected.",
    )


def comes_up(process: int | None) -> bool:
    """Whether an engine answers in time. A daemon that ends at once (None: before it could be looked at) may have met
    another one, as young."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers():
            return True
        if process is None or ended(process, LOOK_SECONDS):
            met = wait_until(lambda: running_daemon() is not None, YOUNG_SECONDS)
            return met and wait_until(answers, deadline - time.monotonic())
    return False


def answers() -> bool:
    """Whether the engine of this machine does."""
    try:
        connect(DEFAULT_DOCKER_HOST, timeout=PING_SECONDS).close()
    except EngineUnavailable:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def running_daemon() -> int | None:
    """The process id of a Docker daemon that runs here, whether it answers or not."""
    try:
        pid = int(PID_FILE.read_text())
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" and rest[0] not in "ZX" else None


def record_path() -> Path:
    """Where it is written down which daemon we started."""
    return state_directory() / "engine.json"


def read_record() -> StartedEngine | None:
    """The daemon that we started, whether it still runs or not; None where we started none."""
    try:
        return StartedEngine(**json.loads(record_path().read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise EngineError(
            f"The record of the engine that was started here, {record_path()}, can't be read ({error}).",
            "Remove the file.",
        ) from error


@contextlib.contextmanager
def opened(started: StartedEngine) -> Iterator[int | None]:
    """A descriptor of the very process that we started (pidfd_open(2)); None where it has ended."""
    try:
        descriptor = os.pidfd_open(started.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # looked at after the descriptor was opened: from here on the id can't become another process's
        is_ours = (start_time(started.pid), boot_id()) == (started.start_time, started.boot_id)
        yield descriptor if is_ours and not ended(descriptor, 0) else None
    finally:
        os.close(descriptor)


def ended(process: int, seconds: float) -> bool:
    """Whether a process ends within that time."""
    return bool(select.select([process], [], [], seconds)[0])


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of a process; 0 where there is none. See proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(b")")[2].split()[19])


def boot_id() -> str:
    """What tells this boot of the machine from others: a record may outlive the one it was made in."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
