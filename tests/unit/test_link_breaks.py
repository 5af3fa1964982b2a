"""Links that break and come back, and the thread and directory that all links of a program share."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_manager.errors import LinkBroken
from session_manager.frames import DATA, OPEN, KernelState
from session_manager.link_thread import LinkThread, make_runtime_directory

from .links import PATIENCE, Links, frame, hello, read, read_exactly, until

# -- breaking, and coming back ---


async def test_the_end_of_the_stream_breaks_the_link_and_the_next_stream_heals_it(links: Links) -> None:
    changed = threading.Event()
    link = links.link(changed.set)
    relay = await links.attach(link)
    client, _ = await links.opened(link, relay)
    asking = asyncio.create_task(link.request("acquire", None))
    await relay.frame()
    changed.clear()
    relay.socket.close()
    with pytest.raises(LinkBroken, match="ended: relay: some last words$"):
        await asking
    await until(changed.is_set)
    assert await read(client) == b""
    assert link.kernel == KernelState("ready", 1)
    early = await links.client(link)
    await asyncio.get_running_loop().sock_sendall(early, b"while it was down")
    relay = await links.attach(link, hello(kernel={"state": "ready", "generation": 3}))
    assert link.broken is None
    assert link.kernel.generation == 3
    kind, number, _ = await relay.frame()
    assert kind == OPEN
    assert await relay.frame() == (DATA, number, b"while it was down")
    await links.check(link, relay)


async def test_a_client_that_connects_just_as_the_link_breaks_is_served_by_the_next_stream(
    links: Links,
) -> None:
    link, relay = await links.attached()
    with links.held():
        relay.socket.close()
        client = await links.client(link)
        await asyncio.get_running_loop().sock_sendall(client, b"hello?")
    await until(lambda: link.broken is not None)
    relay = await links.attach(link)
    kind, number, _ = await relay.frame()
    assert kind == OPEN
    assert await relay.frame() == (DATA, number, b"hello?")


async def test_a_relay_that_says_nothing_is_left(links: Links) -> None:
    link, relay = links.link(), links.relay()
    with pytest.raises(LinkBroken, match=r"said nothing for 0\.05 s"):
        await link.attach(relay.stream, 0.05)
    assert await relay.is_left()
    await links.check(link, await links.attach(link))


async def test_a_call_that_is_cancelled_before_the_thread_sees_it_leaves_no_trace(links: Links) -> None:
    link, relay = links.link(), links.relay()
    with links.held():
        calls = [asyncio.create_task(link.request("status", PATIENCE)), asyncio.create_task(link.rebind())]
        calls.append(asyncio.create_task(link.attach(relay.stream, PATIENCE)))
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    assert await relay.is_left()
    await links.check(link, await links.attach(link))


async def test_a_dropped_link_and_a_second_stream(links: Links) -> None:
    link, first = await links.attached()
    link.drop()
    assert await first.is_left()
    await until(lambda: isinstance(link.broken, LinkBroken))
    second = await links.attach(link)
    third = await links.attach(link)
    assert await second.is_left()
    await links.check(link, third)


async def test_rebinding_offers_the_endpoints_anew_and_leaves_connections_alone(links: Links) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    for endpoint in range(1, 6):
        (link.directory / f"kernel-{endpoint}").unlink()
    await link.rebind()
    await links.check(link, relay)
    await relay.send(frame(DATA, number, b"as before"))
    assert await read_exactly(client, 9) == b"as before"


async def test_closing_takes_everything_away(links: Links) -> None:
    link, relay = await links.attached()
    client, _ = await links.opened(link, relay)
    asking = asyncio.create_task(link.request("status", PATIENCE))
    await relay.frame()
    await link.close()
    with pytest.raises(LinkBroken, match="closed by this program"):
        await asking
    assert await relay.is_left()
    assert await read(client) == b""
    assert not link.directory.exists()
    await link.close()


# -- the thread and its directory ---


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory in place of this user's own."""
    with tempfile.TemporaryDirectory(prefix="rt-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


def test_a_closed_thread_gives_everything_back(runtime: Path) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    thread = LinkThread()
    ran = threading.Event()
    thread.call(ran.set)
    assert ran.wait(PATIENCE)
    directory = thread.new_directory()
    assert directory.parent.parent == runtime
    thread.close()
    thread.close()
    assert not list(runtime.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not [running for running in threading.enumerate() if running.name == "session-links"]
    with pytest.raises(RuntimeError, match="closed"):
        thread.call(ran.set)


def test_directories_of_programs_that_were_killed_are_swept_and_live_ones_are_not(runtime: Path) -> None:
    live, live_lock = make_runtime_directory()
    killed, killed_lock = make_runtime_directory()
    (killed / "abc").mkdir()
    (killed / "abc" / "kernel-1").touch()
    os.close(killed_lock)  # as the system does when a program ends
    foreign = runtime / "dockint-no-lock"
    foreign.mkdir()
    elsewhere = runtime / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (runtime / "dockint-link").symlink_to(elsewhere)
    new, new_lock = make_runtime_directory()
    assert live.exists()
    assert not killed.exists()
    assert foreign.exists()
    assert (elsewhere / "lock").exists()
    assert new.stat().st_mode & 0o777 == 0o700
    os.close(live_lock)
    os.close(new_lock)


def test_a_runtime_directory_with_a_long_path_is_not_used(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = runtime / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    directory, lock = make_runtime_directory()
    assert len(str(directory)) < 50
    shutil.rmtree(directory)
    os.close(lock)
