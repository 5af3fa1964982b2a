"""What goes into an image: its files, the name that follows from them, and the build context."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from ..errors import ImageBuildFailed

DEFAULT_BASE = "python:3.12-slim"
CA_BUNDLE = "ca-bundle.crt"
CA_BUNDLE_LIMIT = 4 << 20  # bytes; a system's own is about 200 kB
CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
SYSTEM_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
LOCAL_CA_DIRECTORY = Path("/usr/local/share/ca-certificates")
ROOT = Path(__file__).resolve().parents[2]  # a checkout's, or site-packages
PROXY_FOLDER = Path(__file__).resolve().parent / "proxy"
CONTEXT_TIME = 315532800  # 1980-01-01, before which zip files can't go: the same files make the same context


class ImageKind(StrEnum):
    """The images that this package builds."""

    DEFAULT = "default"
    """An IPython kernel and what it needs."""
    EXAMPLE = "example"
    """The default image with packages for data analysis (Dockerfile.python.example)."""
    PROXY = "proxy"
    """The proxy of sessions that may reach listed hosts: no session runs on it."""

    @property
    def repository(self) -> str:
        """The image's name, without a tag."""
        return {
            ImageKind.DEFAULT: "docker-interpreter/kernel",
            ImageKind.EXAMPLE: "docker-interpreter/data",
            ImageKind.PROXY: "docker-interpreter/proxy",
        }[self]


SESSION_IMAGES = (ImageKind.DEFAULT, ImageKind.EXAMPLE)
"""Those that sessions run on."""


def image_files(kind: ImageKind) -> dict[str, bytes]:
    """The files that an image is built from, by their names in the build context.

    :raises ImageBuildFailed: they are not where this package is installed.
    """
    inside = ROOT / "kernel_image"
    try:
        if kind is ImageKind.DEFAULT:
            paths = [inside / "Dockerfile", inside / "requirements.txt", *inside.glob("*.py")]
            return {path.name: path.read_bytes() for path in paths}
        if kind is ImageKind.PROXY:
            return {"Dockerfile": (PROXY_FOLDER / "Dockerfile").read_bytes()}
        # at the top of a checkout; with the other files in site-packages, where it would be nobody's
        places = [folder / "Dockerfile.python.example" for folder in (ROOT, inside)]
        return {"Dockerfile": next(filter(Path.is_file, places), places[0]).read_bytes()}
    except OSError as error:
        raise ImageBuildFailed(
            f"A file of the {kind} image is missing: {error}.", "Install docker-interpreter again."
        ) from error


def image_reference(kind: ImageKind, base: str = DEFAULT_BASE) -> str:
    """The name and tag of the image that the current files make on a base: another content, another tag.

    ``base`` is the reference of the base of the default image, and of the proxy; the example is made on the default
    image.

    :raises ImageBuildFailed: the files are not where this package is installed.
    """
    parent = image_reference(ImageKind.DEFAULT, base) if kind is ImageKind.EXAMPLE else base
    return reference_of(kind, parent, image_files(kind))


def reference_of(kind: ImageKind, parent: str, files: Mapping[str, bytes]) -> str:
    """The name and tag of the image that those files make on the image ``parent``."""
    digest = hashlib.sha256(f"{kind} {parent}\n".encode())
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return f"{kind.repository}:{digest.hexdigest()[:12]}"


def host_ca_bundle() -> tuple[str, bytes]:
    """The certificates that this host trusts, where it has some of its own: who names them, what they are.

    Both are empty where it has none. What a variable of pip or OpenSSL names counts as the host's own; so
    does the system's bundle, once an administrator has added to it.

    :raises ImageBuildFailed: the file that a variable names can't be read, or is too large to be a bundle.
    """
    for variable in CA_VARIABLES:
        if named := os.environ.get(variable):
            return variable, read_bundle(Path(named), variable)
    if any(LOCAL_CA_DIRECTORY.rglob("*.crt")) and SYSTEM_CA_BUNDLE.is_file():
        return str(SYSTEM_CA_BUNDLE), read_bundle(SYSTEM_CA_BUNDLE, "this system")
    return "", b""


def read_bundle(path: Path, source: str) -> bytes:
    try:
        with path.open("rb") as file:
            bundle = file.read(CA_BUNDLE_LIMIT + 1)
    except OSError as error:
        raise ImageBuildFailed(
            f"The CA bundle {path}, which {source} names, can't be read: {error.strerror}.",
            "Name a file that holds certificates, or unset the variable.",
        ) from error
    if len(bundle) > CA_BUNDLE_LIMIT:
        raise ImageBuildFailed(
            f"The CA bundle {path}, which {source} names, is larger than {CA_BUNDLE_LIMIT >> 20} MiB.",
            "Name a file that holds certificates alone.",
        )
    return bundle


def build_context(files: Mapping[str, bytes]) -> io.BytesIO:
    """A tar of those files; equal files make equal bytes, so the engine's cache of layers stays valid."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            member.mtime = CONTEXT_TIME
            archive.addfile(member, io.BytesIO(content))
    buffer.seek(0)
    return buffer
