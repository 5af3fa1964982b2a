"""Patterns of file names as shells have them, and where on this machine what they name goes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from ..errors import SandboxError
from ..workspace import FileEntry

WILDCARDS = re.compile(r"[*?\[]")


def is_pattern(text: str) -> bool:
    """Whether a shell would take it for more than one name."""
    return WILDCARDS.search(text) is not None


def matches(path: str, pattern: str) -> bool:
    """Whether a path is one that a pattern means: ``*`` and ``?`` stay within a name, ``**`` spans folders.

    As in a shell, a name that begins with a dot is meant only where the pattern says the dot.
    """
    names, parts = path.split("/"), [part for part in pattern.split("/") if part not in ("", ".")]
    # which numbers of names the parts so far may have taken: no pattern takes long, however many stars it has
    reached = {0}
    for part in parts:
        following = set()
        for taken in reached:
            if part == "**":
                following.add(taken)
                for end in range(taken, len(names)):
                    if names[end].startswith("."):
                        break
                    following.add(end + 1)
            elif taken < len(names) and name_matches(names[taken], part):
                following.add(taken + 1)
        reached = following
    return len(names) in reached


def name_matches(name: str, pattern: str) -> bool:
    """The same of one name."""
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return _compiled(pattern).match(name) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def chosen(entries: Iterable[FileEntry], pattern: str) -> dict[str, FileEntry]:
    """What a pattern means among the entries of a workspace, by the names that it has under a folder of this machine.

    As ``cp -r`` does it: a file goes by its own name, and a folder with all that is in it.

    :raises SandboxError: two of them have one name.
    """
    taken: dict[str, FileEntry] = {}
    every = list(entries)
    folders = {entry.path for entry in every if entry.kind == "folder" and matches(entry.path, pattern)}
    for entry in every:
        if entry.kind == "folder":
            continue
        inside = next((folder for folder in parents(entry.path) if folder in folders), None)
        if inside is not None:
            add(taken, below(entry.path, inside), entry)
        elif matches(entry.path, pattern):
            add(taken, entry.path.rpartition("/")[2], entry)
    return taken


def parents(path: str) -> Iterable[str]:
    """The folders that a path lies in, the outermost first."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[: count + 1]) for count in range(len(parts)))


def below(path: str, folder: str) -> str:
    """A path as seen from where the folder lies."""
    above = folder.rpartition("/")[0]
    return path[len(above) + 1 :] if above else path


def add(taken: dict[str, FileEntry], name: str, entry: FileEntry) -> None:
    """Note what a name stands for.

    :raises SandboxError: it stands for something else already.
    """
    other = taken.setdefault(name, entry)
    if other.path != entry.path:
        raise SandboxError(
            f"{other.path!r} and {entry.path!r} would both be written to {name!r}.",
            "Get them one by one, into folders of their own, or the folder that they are in.",
        )


def local_place(folder: Path, name: str) -> Path:
    """Where below ``folder`` a file of this name goes. The name came out of a container.

    :raises SandboxError: that would not be below it.
    """
    parts = name.split("/")
    place = folder.joinpath(*parts)
    outside = SandboxError(
        f"{name!r} would be written outside {str(folder)!r}.", "Get it alone, with -o and a name for it."
    )
    if not all(parts) or "\0" in name or ".." in parts or "." in parts:
        raise outside
    if not place.parent.resolve().is_relative_to(folder.resolve()):  # a link that lies there leads away
        raise outside
    return place
