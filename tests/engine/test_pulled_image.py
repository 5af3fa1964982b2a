"""An image that the engine does not have is pulled: here from a registry on this machine."""

from __future__ import annotations

import uuid

import docker
import pytest

from session_manager import ImageMissing, SessionManager
from session_manager.images import ImageKind, ensure_image
from tests.conftest import MakeManager, MakeSettings
from tests.image_registry import layer_with, published, registry


@pytest.mark.timeout(600)
async def test_it_is_pulled_and_says_how_far_it_is(client: docker.APIClient, make_settings: MakeSettings) -> None:
    lines: list[str] = []
    default = ensure_image(client, ImageKind.DEFAULT, progress=print)
    with registry(*published(client, default, layer_with("opt/note", b"from a registry"))) as address:
        reference = f"{address}/team/python-{uuid.uuid4().hex[:8]}:1"
        try:
            async with SessionManager(make_settings(image=reference), progress=lines.append) as manager:
                session = await manager.throw_away()
                assert "from a registry" in (await session.execute("open('/opt/note').read()")).text
            assert lines[0] == f"Pulling {reference}"
            assert any(" layers" in line for line in lines)
        finally:
            client.remove_image(reference)


async def test_a_registry_that_is_not_there_is_a_sentence(make_manager: MakeManager) -> None:
    manager = await make_manager(image="127.0.0.1:9/nobody/has:this")
    with pytest.raises(ImageMissing, match="not on the engine and can't be pulled: .*refused"):
        await manager.session("x")
