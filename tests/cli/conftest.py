"""The command line as people use it: as a process, in its own folder, on this test run's own sessions."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import secrets
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.sessions import remove_all
from session_manager import Settings

from ..ask_endpoint import MODEL, Script, ScriptedEndpoint, serve
from ..conftest import NAMESPACE

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "session_manager.cli"]
CLI_NAMESPACE = f"cli-{NAMESPACE}"
SECONDS = 90

Serve = Callable[[Script], ScriptedEndpoint]
Ask = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class CommandLine:
    """Runs ``docker-interpreter`` in ``folder``."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self.environment, **environment},
            timeout=SECONDS,
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start it; the caller waits for it."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )

    def on_a_terminal(self, *arguments: str | Path, typed: bytes = b"", **environment: str) -> tuple[int, bytes]:
        """Run it on a terminal of 100 columns: its exit code, and all that it wrote."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        with subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.folder,
            env={**self.environment, "TERM": "xterm-256color", **environment},
        ) as process:
            os.close(theirs)
            os.write(ours, typed)
            written = b""
            with contextlib.suppress(OSError):  # how the end of a terminal reads
                while piece := os.read(ours, 65536):
                    written += piece
        os.close(ours)
        return process.returncode, written


@pytest.fixture(scope="session")
def cli_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with this test run's namespace; its sessions are removed when the run ends."""
    state = tmp_path_factory.mktemp("cli-state")
    config = state / "config.yaml"
    config.write_text("limits: {interrupt_grace: 15.0, idle_timeout: 900}\n")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOCKER_INTERPRETER_", "KITTY_", "TERM", "LC_TERMINAL", "TMUX", "STY", "NO_COLOR"))
    }
    yield {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "DOCKER_INTERPRETER_CONFIG": str(config),
        "DOCKER_INTERPRETER_NAMESPACE": CLI_NAMESPACE,
        "DOCKER_INTERPRETER_STATE_DIR": str(state),
        "XDG_CACHE_HOME": str(state / "cache"),
    }
    for engine in ("docker", "process"):
        asyncio.run(remove_all(Settings(engine=engine, namespace=CLI_NAMESPACE, state_dir=state)))


@pytest.fixture
def cli(cli_environment: dict[str, str], tmp_path: Path) -> CommandLine:
    """The command line on plain processes, which start soonest."""
    return CommandLine(tmp_path, {**cli_environment, "DOCKER_INTERPRETER_ENGINE": "process"})


@pytest.fixture
def alone(cli: CommandLine, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line on plain processes, in a namespace of the test's own."""
    namespace = f"{CLI_NAMESPACE}-{secrets.token_hex(3)}"
    yield CommandLine(tmp_path, {**cli.environment, "DOCKER_INTERPRETER_NAMESPACE": namespace})
    state_dir = Path(cli.environment["DOCKER_INTERPRETER_STATE_DIR"])
    asyncio.run(remove_all(Settings(engine="process", namespace=namespace, state_dir=state_dir)))


@pytest.fixture
def docker_cli(cli_environment: dict[str, str], tmp_path: Path) -> CommandLine:
    """The command line on containers, as it is by default."""
    return CommandLine(tmp_path, cli_environment)


@pytest.fixture
def endpoint() -> Iterator[Serve]:
    """Starts an endpoint that follows a script."""
    with contextlib.ExitStack() as stack:
        yield lambda script: stack.enter_context(serve(script))


@pytest.fixture
def ask(cli: CommandLine) -> Ask:
    """Runs ``ask`` against an endpoint."""
    cli.environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        cli.environment.pop(name, None)

    def run(server: ScriptedEndpoint, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return cli(*asking(server, *arguments), **environment)

    return run


def asking(server: ScriptedEndpoint, *arguments: str) -> list[str]:
    """The arguments that ask a scripted model; "What is it?" where no others are given."""
    return ["ask", "--base-url", server.base_url, "--model", MODEL, *(arguments or ("What is it?",))]
