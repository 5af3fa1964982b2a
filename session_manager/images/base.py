"""The image that the default one is made on: pulled, or else made from the distribution's packages."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import requests
from docker import auth
from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag

from ..debian import Distribution, Progress, can_install, distribution, find_program, install_packages, run
from ..errors import HostError, ImageBuildFailed, ImageMissing
from .context import DEFAULT_BASE

BASE_REPOSITORY = "docker-interpreter/base"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
SLIM = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*/LC_MESSAGES/*.mo",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
COMPONENTS = {"debian": "main", "ubuntu": "main,universe"}  # Ubuntu keeps python3-venv in universe
REGISTRY_SECONDS = 20.0
"""How long a registry may be silent, before it answers or while it sends, until a pull is given up."""


def ensure_base(client: docker.APIClient, progress: Progress) -> str:
    """The reference of a base image that the engine has: the default one, or one made from Debian's packages.

    A base that was made once is used again, without asking a registry.

    :raises ImageBuildFailed: there is none and none can be made; says what to do.
    """
    made = debian_base_reference()
    for reference in (DEFAULT_BASE, made):
        if reference and has_image(client, reference):
            return reference
    try:
        pull(client, DEFAULT_BASE, progress)
        return DEFAULT_BASE
    except ImageBuildFailed as error:
        host = distribution()
        if host is None or made is None or not can_install():
            raise
        progress(error.message)
        progress(f"Making a base image from the packages of {host.name} {host.codename} instead")
        make_debian_base(client, host, made, progress)
        return made


def ensure_given_image(client: docker.APIClient, reference: str, progress: Progress) -> str:
    """The image that somebody asked for by name: the engine's, or else its registry's.

    :raises ImageMissing: neither has it, or the registry can't be reached.
    """
    if not has_image(client, reference):
        try:
            pull(client, reference, progress)
        except ImageBuildFailed as error:
            raise ImageMissing(
                error.message,
                "Is the name right? Build it, or leave the setting away: `docker-interpreter image build` makes the "
                "default one.",
            ) from error
    return reference


def ensure_given_base(client: docker.APIClient, reference: str, progress: Progress) -> None:
    """Pull a base that somebody asked for by name, where the engine does not have it.

    :raises ImageBuildFailed: it can't be pulled.
    """
    if not has_image(client, reference):
        pull(client, reference, progress)


def has_image(client: docker.APIClient, reference: str) -> bool:
    """Whether the engine has that image."""
    try:
        client.inspect_image(reference)
    except ImageNotFound:
        return False
    return True


def pull(client: docker.APIClient, reference: str, progress: Progress) -> None:
    """Pull an image. A registry that says nothing for 20 s is given up: behind some firewalls none ever does.

    :raises ImageBuildFailed: it can't be pulled.
    """
    progress(f"Pulling {reference}")
    repository, tag = parse_repository_tag(reference)
    registry, _ = auth.resolve_repository_name(repository)
    credentials = auth.get_config_header(client, registry)
    try:
        # what client.pull() does, which waits for ever
        with client.post(
            f"{client.base_url}/v{client.api_version}/images/create",
            params={"fromImage": repository, "tag": tag or "latest"},
            headers={"X-Registry-Auth": credentials} if credentials else {},
            stream=True,
            timeout=(REGISTRY_SECONDS, REGISTRY_SECONDS),
        ) as response:
            if not response.ok:
                raise not_pulled(reference, response.json()["message"])
            follow_pull(reference, messages(response), progress)
    except requests.exceptions.RequestException as error:
        silent = "timed out" in str(error)
        reason = f"no answer from the registry in {REGISTRY_SECONDS:.0f} s" if silent else str(error)
        raise not_pulled(reference, reason) from error


def messages(response: requests.Response) -> Iterator[dict[str, Any]]:
    """The engine's account of a pull: one JSON object a line."""
    for line in response.iter_lines():
        if line:
            yield json.loads(line)


def follow_pull(reference: str, account: Iterator[dict[str, Any]], progress: Progress) -> None:
    layers, complete = set[str](), set[str]()
    for message in account:
        if "error" in message:
            raise not_pulled(reference, message["error"])
        layer, status = message.get("id", ""), message.get("status", "")
        if status == "Pulling fs layer":
            layers.add(layer)
        elif status == "Pull complete" and layer not in complete:
            complete.add(layer)
            progress(f"Pulling {reference}: {len(complete)} of {len(layers)} layers")


def not_pulled(reference: str, reason: str) -> ImageBuildFailed:
    return ImageBuildFailed(
        f"{reference} is not on the engine and can't be pulled: {reason.strip().rstrip('.')}.",
        "Let the engine reach its registry, or name a base image that it has or can get: `docker-interpreter "
        "image build --base IMAGE` (Debian or Ubuntu, with python3 3.11 or newer and its venv module). On "
        "Debian and Ubuntu, root gets a base made from the distribution's packages.",
    )


def debian_base_reference() -> str | None:
    """The name of the base that would be made on this machine; None where it is not Debian or Ubuntu."""
    host = distribution()
    if host is None:
        return None
    recipe = " ".join((host.name, *BASE_PACKAGES, *SLIM))
    return f"{BASE_REPOSITORY}:{host.codename}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def make_debian_base(client: docker.APIClient, host: Distribution, reference: str, progress: Progress) -> None:
    """Make a base image from the distribution's own packages with mmdebstrap(1), as root, in about a minute.

    :raises ImageBuildFailed: that failed; carries the end of the output.
    """
    with tempfile.TemporaryDirectory(prefix="docker-interpreter-") as directory:
        archive = Path(directory) / "base.tar"
        try:
            if find_program("mmdebstrap") is None:
                progress("Installing mmdebstrap from the distribution")
                install_packages(["mmdebstrap"], progress)
            run(
                [
                    "mmdebstrap",
                    "--variant=apt",
                    f"--components={COMPONENTS[host.name]}",
                    f"--include={','.join(BASE_PACKAGES)}",
                    *(f"--dpkgopt={option}" for option in SLIM),
                    # mmdebstrap copies them from the host, which is nobody's business inside
                    '--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"',
                    host.codename,
                    str(archive),
                ],
                lambda line: progress(line.removeprefix("I: ")),
            )
        except HostError as error:
            raise ImageBuildFailed(f"Making a base image failed. {error.message}", error.remedy) from error
        progress(f"Importing it as {reference}")
        repository, tag = parse_repository_tag(reference)
        try:
            client.import_image_from_file(str(archive), repository=repository, tag=tag)
        except APIError as error:
            raise ImageBuildFailed(f"The engine did not import {reference}: {error.explanation}.") from error
    if not has_image(client, reference):
        raise ImageBuildFailed(f"The engine did not import {reference}.", "Its disk may be full: `docker system df`.")
