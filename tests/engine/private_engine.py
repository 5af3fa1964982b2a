"""A Docker daemon of a test's own, beside the one that all others use."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from session_manager.images import ImageKind, ensure_image


class PrivateEngine:
    """A Docker daemon with its own socket and data, on this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> docker.APIClient:
        """Start the daemon and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "unshare",  # a network of its own: a second engine would take the first one's bridge away
                    "--net",
                    "dockerd",
                    f"--host={self.url}",
                    f"--data-root={self.directory}/data",
                    f"--exec-root={self.directory}/exec",
                    f"--pidfile={self.directory}/pid",
                    f"--config-file={self.directory}/daemon.json",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the private engine did not start:\n{(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        return docker.APIClient(self.url, version="auto", timeout=120)

    def answers(self) -> bool:
        """Whether the daemon answers a ping."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(f"{self.directory}/docker.sock")
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b"200 OK" in connection.recv(4096)
            except OSError:
                return False

    def stop(self) -> None:
        """End the daemon, and with it what runs on it."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def private_engine(configuration: Mapping[str, object]) -> Iterator[PrivateEngine]:
    """A daemon that has the default image. ``configuration``: what its daemon.json says."""
    directory = Path(tempfile.mkdtemp(prefix="dockint-engine-"))
    (directory / "daemon.json").write_text(json.dumps(configuration))
    engine = PrivateEngine(directory)
    theirs = engine.start()
    try:
        ours = docker.APIClient(version="auto", timeout=120)
        reference = ensure_image(ours, ImageKind.DEFAULT, progress=lambda _line: None)
        for _ in theirs.load_image(ours.get_image(reference)):
            pass
        theirs.close()
        ours.close()
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(directory, ignore_errors=True)
