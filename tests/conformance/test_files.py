"""Files in and out of sessions, on every engine."""

from __future__ import annotations

import asyncio
import hashlib
import io
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session_manager import FileError, FileMissing, FileRefused, FileTooLarge, SandboxError, Session, SessionManager
from tests.conftest import MakeManager

NAMES = ["a.csv", "with space.txt", "-rf", "日本/ü.txt", "deep/er/and/deeper", ".hidden", "new\nline", "\udcff.bin"]


async def test_round_trips_and_ownership(session: Session, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        content = bytes([number]) * number
        assert (await session.files.put(content, name)).size == number
        assert await session.files.get(name) == content
    found = {entry.path for entry in await session.files.list() if entry.kind == "file"}
    assert found == set(NAMES)
    run = await session.execute(
        "import os\n"
        "print({(os.stat(f).st_uid, os.stat(f).st_mode & 0o777) for _, _, fs in os.walk('.') for f in fs"
        " if os.path.exists(f)} == {(os.getuid(), 0o644)})\n"
        "open('a.csv', 'a').write('more')\n"
        "print(len(open('deep/er/and/deeper', 'rb').read()))"
    )
    assert run.text.split()[0] == "True", run.text
    assert await session.files.get("a.csv") == b"more"
    await session.files.download("a.csv", tmp_path / "new" / "home.csv")
    assert (tmp_path / "new" / "home.csv").read_bytes() == b"more"
    await session.files.remove("deep", recursive=True)
    assert await session.files.stat("deep") is None


async def test_what_can_be_put(session: Session, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b""
        yield b"two" * 100_000

    (tmp_path / "local").write_bytes(b"from a file")
    await session.files.put(tmp_path / "local", "1")
    await session.files.put(io.BytesIO(b"from a stream"), "2")
    await session.files.put(pieces(), "3")
    assert [await session.files.get(name) for name in "123"] == [
        b"from a file",
        b"from a stream",
        b"one" + b"two" * 100_000,
    ]


async def test_what_leads_out_is_listed_and_never_followed(session: Session) -> None:
    await session.execute("import os; os.symlink('/etc/hostname', 'out'); os.symlink('/', 'root'); os.mkfifo('pipe')")
    kinds = {entry.path: (entry.kind, entry.target) for entry in await session.files.list()}
    assert kinds == {"out": ("link", "/etc/hostname"), "root": ("link", "/"), "pipe": ("other", None)}
    for path in ("out", "root/etc/hostname", "pipe"):
        with pytest.raises(FileRefused):
            await session.files.get(path)
    with pytest.raises(FileMissing):
        await session.files.get("nothing")


async def test_beside_a_cell_that_runs(session: Session) -> None:
    await session.execute("import time, os")
    cell = asyncio.create_task(
        session.execute("while not os.path.exists('go'): time.sleep(0.01)\nopen('done', 'w').write('yes')")
    )
    while await session.running() is None:
        await asyncio.sleep(0.01)
    await session.files.put(b"", "go")
    assert (await cell).status == "ok"
    assert await session.files.get("done") == b"yes"


async def test_a_cancelled_put_leaves_what_was_there(session: Session) -> None:
    await session.files.put(b"old", "file")
    sending = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield b"new"
        sending.set()
        await asyncio.sleep(600)

    put = asyncio.create_task(session.files.put(stalls(), "file"))
    await sending.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert await session.files.get("file") == b"old"
    listing = await session.execute(
        "import os; print(sorted(n for n in os.listdir('.') if not n.startswith('.docker')))"
    )
    for _ in range(100):  # the far end hears of it a moment later
        if listing.text == "['file']":
            break
        await asyncio.sleep(0.1)
        listing = await session.execute("print(sorted(n for n in os.listdir('.') if not n.startswith('.docker')))")
    assert listing.text == "['file']"


async def test_a_source_that_fails_leaves_what_was_there(session: Session) -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield b"new"
        raise ValueError("the source's own")

    await session.files.put(b"old", "file")
    with pytest.raises(ValueError, match="the source's own"):
        await session.files.put(fails(), "file")
    assert await session.files.get("file") == b"old"


async def test_limits(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"file_bytes": "1m", "files": 3})
    session = await manager.throw_away()
    with pytest.raises(FileTooLarge):
        await session.files.put(b"x" * ((1 << 20) + 1), "large")
    await session.execute("for n in 'abcd': open(n, 'wb').write(b'x' * (2 << 20 if n == 'a' else 1))")
    with pytest.raises(FileTooLarge):
        await session.files.get("a")
    with pytest.raises(FileTooLarge):
        await session.files.list()
    with pytest.raises(FileTooLarge):
        await session.files.put(b"", "one more")


async def test_files_of_a_session_that_has_ended(manager: SessionManager) -> None:
    session = await manager.session("ended")
    await session.execute("x = 1; open('made', 'w').write('inside')")
    await session.stop()
    async with manager.files("ended") as files:
        assert await files.get("made") == b"inside"
        await files.put(b"from outside", "put")
        await files.remove("made")
        assert [entry.path for entry in await files.list()] == ["put"]
        with pytest.raises(FileError):
            await files.get("made")
    assert [one.state for one in await manager.list(stopped=True) if one.key == "ended"] == ["files only"]
    again = await manager.session("ended")
    run = await again.execute("print(open('put').read())")
    assert "from outside" in run.text and run.notice is not None and "An earlier session" in run.notice
    async with manager.files("ended") as files:
        assert [entry.path for entry in await files.list()] == ["put"]
    await again.stop(purge=True)
    with pytest.raises(SandboxError, match="no session"):
        async with manager.files("ended"):
            pass


async def test_a_first_cell_after_a_put_has_nothing_to_tell(manager: SessionManager) -> None:
    session = await manager.session("put first")
    await session.files.put(b"x", "file")
    assert (await session.execute("1")).notice is None


async def test_a_large_file_is_never_held_whole(session: Session, tmp_path: Path) -> None:
    size, piece = 192 << 20, bytes(range(256)) * 4096
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            sent.update(piece)
            yield piece

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    progress: list[int] = []
    assert (await session.files.put(pieces(), "large", on_progress=progress.append)).size == size
    async for part in session.files.stream("large"):
        received.update(part)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert received.digest() == sent.digest() and progress[-1] == size
    assert grown < 64 << 10, f"{grown} KiB for a file of {size >> 10} KiB"
