"""Fixtures of the unit tests."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from session_manager import cell_run
from session_manager.link_thread import LinkThread

from .fake_kernel import PATIENCE, Bench, FakeKernel
from .links import Links
from .supervised import KERNEL_IMAGE, MODULES, STAND_IN, WAITING, Start, Supervised


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a supervisor with a stand-in for the kernel, that does what ``code`` says. A second one in the same test
    gets the first one's workspace."""
    started: list[Supervised] = []
    with tempfile.TemporaryDirectory(prefix="sup-") as name:
        directory = Path(name)
        for module in MODULES:
            shutil.copy(KERNEL_IMAGE / f"{module}.py", directory)
        (directory / "launch_kernel.py").write_text(STAND_IN)

        def make(
            code: str = WAITING,
            changes: Mapping[str, float | str] | None = None,
            idle_timeout: float = 600,
            **options: object,
        ) -> Supervised:
            (directory / "files").mkdir(exist_ok=True)
            (directory / "files" / "code.py").write_text(code)
            started.append(Supervised(directory, directory, {"idle_timeout": idle_timeout, **options}, changes))
            return started[-1]

        yield make
        for supervised in started:
            supervised.stop()
            words = (directory / "log").read_text()
            assert supervised.process.returncode == 0, words
            assert "Traceback" not in words


@pytest.fixture
async def links(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Links]:
    thread = LinkThread()
    made = Links(thread)
    try:
        yield made
    finally:
        for link in made.links:
            await link.close()
        await asyncio.to_thread(thread.close)
        for opened in made.sockets:
            opened.close()
    caught = [record for record in caplog.get_records("call") if record.exc_info]
    assert not caught, "the thread caught an exception"


@pytest.fixture
def fake() -> Iterator[FakeKernel]:
    with tempfile.TemporaryDirectory(prefix="fk-") as directory:
        made = FakeKernel(Path(directory))
        yield made
        made.stop()


@pytest.fixture
async def bench(fake: FakeKernel) -> AsyncIterator[Bench]:
    made = Bench(fake)
    await made.kernel.connect(PATIENCE)
    yield made
    await made.kernel.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are seconds otherwise."""
    monkeypatch.setattr(cell_run, "IDLE_AFTER_REPLY", 0.3)
    monkeypatch.setattr(cell_run, "LOOK_FOR_REPLY", 0.05)
    monkeypatch.setattr(cell_run, "LOOK_ANYWAY", 0.2)
    monkeypatch.setattr(cell_run, "CATCH_UP", 0.5)
