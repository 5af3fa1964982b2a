"""Nothing of ours stays where it should not: containers, volumes, execs, threads, descriptors, directories."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from pathlib import Path

import docker

from session_manager.registry import LABEL_NAMESPACE
from tests.conftest import MakeManager


def descriptors() -> int:
    """How many files and sockets this process has open."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def runtime_directories() -> list[str]:
    """Directories for links' sockets that this process holds: the lock of each is one of its open files."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
            links.append(str(entry.readlink()))
    return [link for link in links if "dockint-" in link and link.endswith("/lock")]


async def test_using_sessions_leaves_nothing(make_manager: MakeManager, client: docker.APIClient) -> None:
    async def use() -> None:
        manager = await make_manager()
        kept, thrown, *_ = await asyncio.gather(
            manager.session("kept"), manager.throw_away(), *(manager.session(f"more/{i}") for i in range(3))
        )
        await asyncio.gather(kept.execute("x = 1"), thrown.execute("1 / 0"), *(kept.execute("x") for _ in range(5)))
        await thrown.execute("import os; os._exit(1)")
        await manager.detach()

    await use()  # what is made once for each process is made now
    before = descriptors()
    for _ in range(3):
        await use()
    assert descriptors() <= before
    assert runtime_directories() == []
    assert [t.name for t in threading.enumerate() if t.name.startswith(("session-", "docker", "blocking"))] == []

    manager = await make_manager()
    labels = {"label": [f"{LABEL_NAMESPACE}={manager.settings.namespace}"]}
    found = client.containers(all=True, filters=labels)
    assert len(found) == 4, "four named sessions live on, the throw-away ones are gone"
    for container in found:
        async with asyncio.timeout(10):  # a relay ends a moment after its stream
            while client.inspect_container(container["Id"])["ExecIDs"]:
                await asyncio.sleep(0.05)
    await manager.session("kept")
    assert len(runtime_directories()) == 1
    for status in await manager.list():
        await manager.stop(status.key, purge=True)
    assert client.containers(all=True, filters=labels) == []
    assert client.volumes(filters=labels)["Volumes"] in ([], None)
