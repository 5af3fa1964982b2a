"""Images with packages of somebody's own, so that sessions need no network to have them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import docker

from ..debian import Progress
from ..errors import ImageBuildFailed
from ..state_directory import exclusive
from .base import has_image
from .build import BASE_LABEL, build_files, ensure_image
from .context import ImageKind

REPOSITORY = "docker-interpreter/custom"
DOCKERFILE = Path(__file__).resolve().parent / "custom" / "Dockerfile"
MOST_BYTES = 1 << 20
# what pip would look for beside the file, where the build has nothing
_ELSEWHERE = re.compile(r"-[rcef]|--(?:requirement|constraint|editable|find-links)\b|file:|\.{0,2}/|\.$", re.ASCII)


def ensure_custom_image(
    client: docker.APIClient,
    kind: ImageKind,
    requirements: Path,
    *,
    progress: Progress,
    base: str | None = None,
    rebuild: bool = False,
) -> str:
    """The reference of an image with the packages of a requirements file; built where the engine has none.

    It is made on the image of this kind, which is built first where it is missing. Its tag follows from that image and
    from the file's content, so that it stays the same, and the image is not built again, for as long as these do.

    :raises ImageBuildFailed: the file can't be read, or names other files; or it can't be built: carries the end of
        what pip says.
    :raises APIError, RequestException: the engine failed, in docker-py's words.
    """
    content = read_requirements(requirements)
    parent = ensure_image(client, kind, progress=progress, base=base)
    files = {"Dockerfile": DOCKERFILE.read_bytes(), "requirements.txt": content}
    digest = hashlib.sha256(f"{parent}\n".encode())
    for name, text in sorted(files.items()):
        digest.update(f"{name} {len(text)}\n".encode() + text)
    reference = f"{REPOSITORY}:{digest.hexdigest()[:12]}"
    with exclusive("images", lambda: progress("Waiting for another process on this machine that builds an image")):
        if rebuild or not has_image(client, reference):
            made_on = client.inspect_image(parent)["Config"]["Labels"][BASE_LABEL]
            build_files(
                client,
                "custom",
                reference,
                files,
                {"KERNEL_IMAGE": parent},
                labels={BASE_LABEL: made_on},
                progress=progress,
                rebuild=rebuild,
            )
    return reference


def read_requirements(path: Path) -> bytes:
    """The content of a requirements file that stands for itself.

    :raises ImageBuildFailed: there is none, it is no such file, or it names others.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        lines = content.decode().splitlines()
    except OSError as error:
        raise ImageBuildFailed(f"The requirements file {path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise ImageBuildFailed(f"The requirements file {path} can't be read: it is not UTF-8 text.") from None
    if len(content) > MOST_BYTES:
        raise ImageBuildFailed(f"The requirements file {path} is larger than {MOST_BYTES >> 20} MiB.")
    wanted = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not wanted:
        raise ImageBuildFailed(f"The requirements file {path} names no packages.", "One a line, such as: humanize==4.9")
    for line in wanted:
        if _ELSEWHERE.match(line):
            raise ImageBuildFailed(
                f"The requirements file {path} names another file or folder, which the build does not have: {line:.80}",
                "Put all packages into one file: `pip freeze` and `pip-compile` write such files.",
            )
    return content
