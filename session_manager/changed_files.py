"""Which files a cell made or changed, as the kernel, or the file door after its death, says it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from .workspace import mime_of

MOST_FILES: Final = 200
MOST_TEXT: Final = 400_000
"""Characters of the JSON that lists them."""
LONGEST_PATH: Final = 8192


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file of the workspace that a cell made or changed."""

    path: str
    """Relative to the workspace, with slashes; bytes that are no UTF-8 are lone surrogates (:func:`os.fsdecode`)."""
    size: int
    """Bytes, as the cell ended."""
    kind: Literal["new", "changed"]

    @property
    def mime(self) -> str:
        """The type that the name speaks for."""
        return mime_of(self.path)


@dataclass(frozen=True, slots=True)
class ChangedFiles:
    """What is known of a cell's files."""

    files: Sequence[ChangedFile] = ()
    complete: bool = False
    """Whether these are all."""


def from_reply(metadata: Mapping[str, object]) -> ChangedFiles:
    """What the metadata of the reply to a cell say. What is malformed in them is left out."""
    listed = metadata.get("files")
    if not isinstance(listed, str) or len(listed) > MOST_TEXT:
        return ChangedFiles()
    try:
        entries = json.loads(listed)
    except (ValueError, RecursionError):
        return ChangedFiles()
    if not isinstance(entries, list):
        return ChangedFiles()
    files = [
        _changed_file(entry[0], entry[1], entry[2])
        for entry in entries[:MOST_FILES]
        if isinstance(entry, list) and len(entry) == 3
    ]
    return _of(files, complete=metadata.get("files_complete") is True and len(files) == len(entries))


def from_door(answer: Mapping[str, object]) -> ChangedFiles:
    """What the file door answers (``changed`` in ``kernel_image/FRAMES.md``)."""
    entries = answer.get("entries")
    if not isinstance(entries, list):
        return ChangedFiles()
    files = [
        _changed_file(entry.get("path"), entry.get("size"), "new" if entry.get("new") is True else "changed")
        for entry in entries[:MOST_FILES]
        if isinstance(entry, dict)
    ]
    return _of(files, complete=answer.get("truncated") is False and len(files) == len(entries))


def _of(files: Sequence[ChangedFile | None], *, complete: bool) -> ChangedFiles:
    known = tuple(sorted((file for file in files if file is not None), key=lambda file: file.path))
    return ChangedFiles(known, complete and len(known) == len(files))


def _changed_file(path: object, size: object, kind: object) -> ChangedFile | None:
    """The file, if that is what these are."""
    if (
        not isinstance(path, str)
        or not 0 < len(path) <= LONGEST_PATH
        or "\0" in path
        or any(part in ("", ".", "..") for part in path.split("/"))
        or not isinstance(size, int)
        or isinstance(size, bool)
        or not 0 <= size < 1 << 63
    ):
        return None
    if kind == "new":
        return ChangedFile(path, size, "new")
    return ChangedFile(path, size, "changed") if kind == "changed" else None
