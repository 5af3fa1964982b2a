"""Building images, and finding those that were built."""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, BuildError
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from ..debian import Progress
from ..errors import ImageBuildFailed
from ..state_directory import exclusive
from .base import ensure_base, ensure_given_base
from .context import (
    CA_BUNDLE,
    ImageKind,
    build_context,
    host_ca_bundle,
    image_files,
    image_reference,
    reference_of,
)

BASE_LABEL = "docker-interpreter.base-image"
"""Label of an image: the base that the default image under it was made on."""
STAGE_LABEL = "docker-interpreter.stage=build"
"""Label of what a build leaves behind and no image needs: its first stage, over 1 GB for the example."""
PARENT_ARGUMENT = {
    ImageKind.DEFAULT: "BASE_IMAGE",
    ImageKind.EXAMPLE: "KERNEL_IMAGE",
    ImageKind.PROXY: "BASE_IMAGE",
}
SILENT_SECONDS = 900  # a step that says nothing for that long hangs
KEPT_LINES = 20
LINE_LENGTH = 120
PROXY_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)  # build arguments that every engine knows, and keeps nowhere
UNINTERESTING = (
    *("--->", "Removing intermediate container", "Successfully"),
    *("Downloading", "Using cached", "Attempting uninstall", "Found existing", "Uninstalling"),
    *("(Reading database", "Selecting previously", "Preparing to unpack", "debconf:", "[Warning]"),
)
"""Beginnings of lines that builder, pip and apt write for themselves."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def find_image(client: docker.APIClient, kind: ImageKind, base: str | None = None) -> str | None:
    """The reference of the image that the current files make, where the engine has it. One request.

    Without ``base``, any base that it was built on will do; the one built last is taken.

    :raises APIError, RequestException: the engine failed, in docker-py's words.
    """
    for found in sorted(client.images(kind.repository), key=lambda image: -int(image["Created"])):
        made_on = (found["Labels"] or {}).get(BASE_LABEL)
        if made_on and base in (None, made_on):
            reference = image_reference(kind, made_on)
            if reference in (found["RepoTags"] or ()):
                return reference
    return None


def ensure_image(
    client: docker.APIClient,
    kind: ImageKind,
    *,
    progress: Progress,
    base: str | None = None,
    rebuild: bool = False,
) -> str:
    """The reference of a current image on the engine; where it is missing it is built, which takes minutes.

    ``base``: the base of the default image, and of the proxy; by default ``python:3.12-slim``, and where that can't be
    pulled, on Debian and Ubuntu as root, one made from the distribution's packages. ``rebuild``: build in any case,
    without the engine's cache of layers. ``progress`` is called with a line of text for each step. Callers on
    one machine take turns, and those who waited find what the first one built.

    :raises ImageBuildFailed: it can't be built; carries the end of the build's output.
    :raises APIError, RequestException: the engine failed, in docker-py's words.
    """
    if not rebuild and (found := find_image(client, kind, base)):
        return found
    with exclusive("images", lambda: progress("Waiting for another process on this machine that builds an image")):
        if not rebuild and (found := find_image(client, kind, base)):
            return found
        if kind is not ImageKind.EXAMPLE:
            return build_on_base(client, kind, base, progress, rebuild)
        parent = find_image(client, ImageKind.DEFAULT, base) or build_on_base(
            client, ImageKind.DEFAULT, base, progress, rebuild=False
        )
        made_on = client.inspect_image(parent)["Config"]["Labels"][BASE_LABEL]
        return build(client, kind, parent, made_on, progress, rebuild)


def build_on_base(
    client: docker.APIClient, kind: ImageKind, base: str | None, progress: Progress, rebuild: bool
) -> str:
    """Build the default image or the proxy, on ``base`` or on the base that can be had."""
    if base is None:
        base = ensure_base(client, progress)
    else:
        ensure_given_base(client, base, progress)
    return build(client, kind, base, base, progress, rebuild)


def build(client: docker.APIClient, kind: ImageKind, parent: str, base: str, progress: Progress, rebuild: bool) -> str:
    """Build one image on ``parent``, which the engine has, and tag it. ``base`` is what lies under all."""
    files = image_files(kind)
    reference = reference_of(kind, parent, files)
    arguments, labels = {PARENT_ARGUMENT[kind]: parent}, {BASE_LABEL: base}
    build_files(client, kind, reference, files, arguments, labels=labels, progress=progress, rebuild=rebuild)
    client.tag(reference, kind.repository, "latest")
    prune(client)  # an image that this one replaces
    return reference


def build_files(
    client: docker.APIClient,
    name: str,
    reference: str,
    files: Mapping[str, bytes],
    arguments: Mapping[str, str],
    *,
    labels: Mapping[str, str],
    progress: Progress,
    rebuild: bool,
) -> None:
    """Build an image, called ``name`` where that fails, from files with a Dockerfile among them.

    :raises ImageBuildFailed: it can't be built; carries the end of the build's output.
    """
    source, bundle = host_ca_bundle()
    progress(f"Building {reference} on {', '.join(arguments.values())}")
    if bundle:
        progress(f"The build trusts this host's certificates ({source}); they do not stay in the image")
    account = client.build(
        fileobj=build_context({**files, CA_BUNDLE: bundle}),
        custom_context=True,
        tag=reference,
        rm=True,
        forcerm=True,
        nocache=rebuild,
        decode=True,
        timeout=SILENT_SECONDS,
        buildargs={**proxies(), **arguments},
        labels=dict(labels),
    )
    try:
        follow_build(name, account, progress)
    except (APIError, BuildError) as error:
        raise ImageBuildFailed(f"The engine did not build the {name} image: {error}.") from error
    except (HTTPError, RequestException) as error:  # docker-py reads a build's account with bare urllib3
        raise ImageBuildFailed(
            f"The engine went away, or fell silent, while it built the {name} image: {error}.",
            "Look after the engine, then build again.",
        ) from error
    finally:
        prune(client)  # also of a build that failed half-way
    progress(f"Built {reference}")


def prune(client: docker.APIClient) -> None:
    """Remove what no image needs any more: first stages of builds, and images that others have replaced."""
    for label in (STAGE_LABEL, BASE_LABEL):
        # where the engine is at it already, or away, the next build does this
        with contextlib.suppress(APIError, RequestException):
            client.prune_images({"dangling": True, "label": label})


def remove_outdated_images(client: docker.APIClient, progress: Progress) -> list[str]:
    """Remove images that other files made, unless they are in use; returns what was removed.

    Another version of this package, on this engine, has to build its own again. Of an image that the current
    files did not make yet nothing is removed.

    :raises APIError, RequestException: the engine failed, in docker-py's words.
    """
    removed = []
    for kind in reversed(ImageKind):  # the example holds on to the default image under it
        current = find_image(client, kind)
        if current is None:
            continue
        for image in client.images(kind.repository):
            for reference in image["RepoTags"] or ():
                if current in image["RepoTags"] or reference.endswith(":latest"):
                    continue
                try:
                    client.remove_image(reference)
                except APIError as error:
                    if error.status_code != 409:
                        raise
                    progress(f"{reference} is in use")
                else:
                    progress(f"Removed {reference}")
                    removed.append(reference)
    return removed


def follow_build(name: str, account: Iterable[dict[str, Any]], progress: Progress) -> None:
    """Turn the engine's account of a build into lines of progress.

    :raises ImageBuildFailed: the account ends with an error.
    """
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    failure = ""
    for message in account:  # to its end, also after an error, or the connection would stay open
        for line in str(message.get("stream", "")).splitlines():
            text = without_colours(line).strip()
            if text and not text.startswith(UNINTERESTING):
                kept.append(text)
                progress(shortened(text))
        failure = failure or str(message.get("error", ""))
    if failure:
        raise build_failed(name, failure, kept)


def build_failed(name: str, reason: str, kept: Iterable[str]) -> ImageBuildFailed:
    """The error for a build that failed, with the end of its output and, where that is plain, what to do."""
    lines = [line[:300] for line in kept]
    remedy = None
    if any("CERTIFICATE_VERIFY_FAILED" in line for line in lines):
        remedy = "Name the CA bundle that this network needs with PIP_CERT or SSL_CERT_FILE, and build again."
    elif any("name resolution" in line or "NewConnectionError" in line for line in lines):
        remedy = "The build needs PyPI and Debian's mirrors: check the engine's network, or set HTTPS_PROXY."
    elif any("(constraint)" in line for line in lines):
        remedy = "What the image under it has keeps its version: ask for that one, or leave the package away."
    output = "\n".join(f"  {line}" for line in lines)
    # the engine repeats the whole command before it says how that ended
    code = re.search(r"non-zero code: (\d+)$", reason)
    why = f"a step ended with exit code {code[1]}" if code else reason.strip().rstrip(".")[:300]
    return ImageBuildFailed(f"Building the {name} image failed: {why}. The end of its output:\n{output}", remedy)


def shortened(line: str) -> str:
    """A line of a build's output as progress."""
    if step := re.match(r"Step (\d+/\d+) : (.*)", line):
        line = f"Step {step[1]}: {' '.join(step[2].split())}"
    elif package := re.match(r"Collecting ([^\s=]+)==(\S+)", line):
        line = f"  {package[1]} {package[2]}"
    elif installing := re.match(r"Installing collected packages: (.*)", line):
        line = f"  Installing {installing[1].count(',') + 1} packages"
    else:
        line = f"  {line}"
    return line if len(line) <= LINE_LENGTH else f"{line[: LINE_LENGTH - 1]}…"


def without_colours(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def proxies() -> dict[str, str]:
    """This process's proxy settings, for the build; not those that only this host can reach."""
    found = {}
    for name in PROXY_VARIABLES:
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value and (name == "NO_PROXY" or urlsplit(value).hostname not in LOOPBACK):
            found[name] = value
    return found
