"""An image with packages of one's own, built by a real engine, and a session without a network on it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from session_manager.errors import ImageBuildFailed
from session_manager.images import ImageKind, ensure_custom_image, find_image
from session_manager.images.build import BASE_LABEL, STAGE_LABEL
from tests.conftest import MakeManager

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def requirements(tmp_path: Path, client: docker.APIClient) -> Iterator[Path]:
    """A file with one small package, whose image is removed at the end."""
    file = tmp_path / "requirements.txt"
    file.write_text(f"# {uuid.uuid4()}\nhumanize==4.9.0\n")
    yield file
    reference = ensure_custom_image(client, ImageKind.DEFAULT, file, progress=lambda line: None)
    client.remove_image(reference)


async def test_packages_are_there_without_a_network(
    make_manager: MakeManager, client: docker.APIClient, requirements: Path
) -> None:
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "session_manager.cli", "image", "build", "--requirements", str(requirements)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert run.returncode == 0, run.stderr
    reference = run.stdout.splitlines()[-1].rpartition("image: ")[2]
    assert reference.startswith("docker-interpreter/custom:")
    lines: list[str] = []
    assert ensure_custom_image(client, ImageKind.DEFAULT, requirements, progress=lines.append) == reference
    assert lines == [], "it is not built again"
    session = await (await make_manager(image=reference)).throw_away()
    code = "import humanize, json, os; print(json.dumps([humanize.naturalsize(10**6), os.listdir('/sys/class/net')]))"
    assert json.loads((await session.execute(code)).text) == ["1.0 MB", ["lo"]]
    await session.stop(purge=True)
    found = client.inspect_image(reference)["Config"]
    assert found["User"] == "1000:1000" and BASE_LABEL in found["Labels"]
    assert not client.images(filters={"dangling": True, "label": STAGE_LABEL})
    parent = find_image(client, ImageKind.DEFAULT)
    assert parent is not None
    layers = client.inspect_image(parent)["RootFS"]["Layers"]
    assert client.inspect_image(reference)["RootFS"]["Layers"][:-1] == layers, "one layer on the default image"


def test_what_pip_says_is_what_is_told(tmp_path: Path, client: docker.APIClient) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("ipykernel==1.0\n")  # the image has another, which it keeps
    with pytest.raises(ImageBuildFailed, match="a step ended with exit code 1") as caught:
        ensure_custom_image(client, ImageKind.DEFAULT, file, progress=lambda line: None)
    assert "ipykernel==1.0" in caught.value.message and "constraint" in caught.value.message
    assert caught.value.remedy is not None and "keeps its version" in caught.value.remedy
