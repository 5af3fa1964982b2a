"""An engine that stops and comes back under running sessions. The test starts one of its own: no other is touched."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from session_manager import Execution, Session, SessionManager
from session_manager.images import ImageKind, ensure_image
from tests.conftest import MakeManager

# docker-py leaves the socket of a connection that failed to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


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


@pytest.fixture(scope="module")
def private_engine() -> Iterator[PrivateEngine]:
    """A daemon that has the default image."""
    directory = Path(tempfile.mkdtemp(prefix="dockint-engine-"))
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


@pytest.mark.timeout(400)
async def test_twenty_sessions_survive_a_restart_of_the_engine_with_their_files(
    private_engine: PrivateEngine, make_manager: MakeManager
) -> None:
    manager: SessionManager = await make_manager(docker_host=private_engine.url, container={"mem_limit": "256m"})
    gate = asyncio.Semaphore(6)

    async def start(key: str) -> Session:
        async with gate:
            session = await manager.session(key)
            await session.execute(f"open('kept.txt', 'w').write({key!r}); x = 1")
            return session

    idle = await asyncio.gather(*(start(f"idle/{i}") for i in range(15)))
    busy = await asyncio.gather(*(start(f"busy/{i}") for i in range(5)))
    begun = [asyncio.Event() for _ in busy]
    tasks = [
        asyncio.create_task(
            session.execute("print(1, flush=True)\nimport time; time.sleep(200)", on_output=lambda _, e=event: e.set())
        )
        for session, event in zip(busy, begun, strict=True)
    ]
    await asyncio.gather(*(event.wait() for event in begun))
    await asyncio.to_thread(private_engine.stop)
    (await asyncio.to_thread(private_engine.start)).close()
    for run in await asyncio.wait_for(asyncio.gather(*tasks), 200):
        assert run.status == "container_removed" and run.message is not None
        assert "files in the workspace are kept" in run.message

    async def look(session: Session) -> Execution:
        async with gate:
            return await session.execute("print(open('kept.txt').read(), 'x' in globals())")

    for session, after in zip(busy, await asyncio.gather(*map(look, busy)), strict=True):
        assert after.status == "ok" and after.text.endswith(f"{session.key} False")
    for session, told in zip(idle, await asyncio.gather(*map(look, idle)), strict=True):
        assert told.notice is not None and told.text.endswith(f"{session.key} False")
    await asyncio.gather(*(manager.stop(session.key, purge=True) for session in [*idle, *busy]))
    gc.collect()  # so that no other test gets the warnings
