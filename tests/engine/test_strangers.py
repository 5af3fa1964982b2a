"""What does not carry our labels is not ours, whatever it is called."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import docker
import pytest

from session_manager.images import ImageKind, ensure_image
from session_manager.registry import LABEL_NAMESPACE
from tests.conftest import MakeManager, MakeSettings


@pytest.fixture
def strangers(client: docker.APIClient, make_settings: MakeSettings) -> Iterator[list[str]]:
    """Containers that were never started and volumes, with names and labels that come close to ours."""
    image = ensure_image(client, ImageKind.DEFAULT, progress=lambda _line: None)
    namespace = make_settings().namespace
    names = [f"{namespace}-{secrets.token_hex(16)}", f"{namespace}-pool-{secrets.token_hex(16)}"]
    labels = [None, {LABEL_NAMESPACE: f"{namespace}-other"}]
    for name, label in zip(names, labels, strict=True):
        client.create_volume(name, labels=label)
        client.create_container(image, name=name, labels=label)
    lone = f"{namespace}-unused-{secrets.token_hex(16)}"
    client.create_volume(lone)
    yield [*names, lone]
    for name in names:
        client.remove_container(name, force=True)
    for name in [*names, lone]:
        client.remove_volume(name)


async def test_nothing_without_our_labels_is_touched(
    strangers: list[str], client: docker.APIClient, make_manager: MakeManager
) -> None:
    hasty = {"idle_timeout": 0.5, "idle_margin": 60, "orphan_grace": 0.1}
    manager = await make_manager(limits=hasty, workspaces={"keep_unused": 0.1, "total_bytes": "1m"}, pool={"size": 1})
    session = await manager.session("ours")
    await session.execute("x = 1")
    async with asyncio.timeout(60):
        while await manager.list(stopped=True):  # ours is reaped, and its files are removed for having been unused
            await manager._reaper.sweep()
            await asyncio.sleep(0.2)
    volumes = {one["Name"] for one in client.volumes()["Volumes"]}
    assert set(strangers) <= volumes
    containers = {one["Names"][0].lstrip("/") for one in client.containers(all=True)}
    assert set(strangers[:2]) <= containers
