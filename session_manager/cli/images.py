"""The command ``image``: building the images, and which there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docker

from ..engine import docker_engine
from ..execution import readable_size
from ..images import ImageKind, ensure_custom_image, ensure_image, find_image
from ..images.build import BASE_LABEL
from ..settings import Settings
from .progress import Progress
from .tables import plain, print_table


async def build_image(
    settings: Settings, kind: ImageKind, *, rebuild: bool, base: str | None, requirements: Path | None
) -> int:
    """Make sure that an image is there, with a line for each step of building it.

    ``requirements``: a file with packages to be put into an image on that one.

    :raises ImageBuildFailed: it can't be built.
    """
    engine = docker_engine(settings)

    def ensure(client: docker.APIClient) -> str:
        if requirements is None:
            return ensure_image(client, kind, progress=progress, base=base, rebuild=rebuild)
        return ensure_custom_image(client, kind, requirements, progress=progress, base=base, rebuild=rebuild)

    try:
        with Progress(every_line=True) as progress:
            reference = await engine.call(ensure)
    finally:
        await engine.close()
    if requirements is None:
        print(f"The {kind} image is {reference}")
    else:
        print(f"The {kind} image with the packages of {requirements} is {reference}")
        print(f"Sessions run on it with this in their settings:  image: {reference}")
    return 0


async def show_images(settings: Settings, *, as_json: bool) -> int:
    """Show the images that the current files make, and whether the engine has them.

    :raises SandboxError: the engine can't be asked.
    """
    engine = docker_engine(settings)
    try:
        images = await engine.call(lambda client: [describe(client, kind) for kind in ImageKind])
    finally:
        await engine.close()
    if as_json:
        print(json.dumps(images))
        return 0
    table = plain("image", "reference", "size", "built", "base")
    for image in images:
        if image["reference"]:
            built = f"{image['created'][:10]} {image['created'][11:16]}"
            table.add_row(image["name"], image["reference"], readable_size(image["bytes"]), built, image["base"])
        else:
            table.add_row(image["name"], "not built, or not from the current files", "-", "-", "-")
    print_table(table)
    return 0


def describe(client: docker.APIClient, kind: ImageKind) -> dict[str, Any]:
    """One image as JSON. Its reference is null where it has to be built."""
    reference = find_image(client, kind)
    if reference is None:
        return {"name": kind.value, "reference": None}
    found = client.inspect_image(reference)
    return {
        "name": kind.value,
        "reference": reference,
        "id": found["Id"],
        "bytes": found["Size"],
        "created": found["Created"],
        "base": found["Config"]["Labels"][BASE_LABEL],
    }
