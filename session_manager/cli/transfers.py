"""Files on their way into a session or out of one, with a bar for those that take a while."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileMissing, SandboxError
from ..execution import readable_size
from ..outputs import strip_escapes
from ..workspace import FileEntry, WorkspaceFiles
from .exits import complain
from .file_patterns import add, chosen, is_pattern, local_place

if TYPE_CHECKING:
    from rich.progress import Progress

LARGE = 8 << 20
"""Bytes from which a file gets a bar."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that was transferred."""

    path: str
    """In the session's workspace."""
    local: Path
    size: int


@contextmanager
def bar(name: str, size: int) -> Iterator[Callable[[int], None] | None]:
    """What to tell how many bytes have gone; None where nobody would look."""
    if size <= LARGE or not sys.stderr.isatty():
        yield None
        return
    progress = make_progress()
    with progress:
        task = progress.add_task(one_line(name), total=size)
        yield lambda done: progress.update(task, completed=done)


def make_progress() -> Progress:
    """A line on standard error that goes when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


def local_files(sources: Sequence[Path]) -> dict[str, Path]:
    """The files that these paths of this machine stand for, by the names that they get in a workspace.

    A folder stands for all files in it. Links to folders in it, and what is no file, are left out, which is said.

    :raises SandboxError: one is missing, or is no file or folder, or two would get one name.
    """
    found: dict[str, Path] = {}
    for source in sources:
        name = source.resolve().name if source.name in ("", "..") else source.name
        if source.is_dir():
            for folder, folders, names in os.walk(source, onerror=unreadable):
                folders.sort()
                inside = Path(folder)
                for each in folders:
                    if (inside / each).is_symlink():
                        complain(f"Left out: {inside / each} is a link to a folder.")
                for each in sorted(names):
                    if (inside / each).is_file():
                        note(found, "/".join((name, *(inside / each).relative_to(source).parts)), inside / each)
                    else:
                        complain(f"Left out: {inside / each} is no file.")
        elif source.is_file():
            note(found, source.name, source)
        elif source.exists():
            raise SandboxError(f"{source} is neither a file nor a folder.")
        else:
            raise FileMissing(f"There is no file {source}.")
    return found


def unreadable(error: OSError) -> None:
    """A folder that can't be listed must not look empty."""
    raise error


def note(found: dict[str, Path], name: str, path: Path) -> None:
    """Note which file gets a name.

    :raises SandboxError: another does.
    """
    if found.setdefault(name, path) != path:
        raise SandboxError(f"{found[name]} and {path} would both be put as {name!r}.", "Put them one by one.")


async def put_files(files: WorkspaceFiles, sources: Mapping[str, Path], *, bars: bool = True) -> list[Arrived]:
    """Put files of this machine into a workspace, by the paths that they get there. ``bars``: large ones get one.

    :raises SandboxError: as :meth:`WorkspaceFiles.put`; those before it are there.
    """
    arrived = []
    for path, local in sources.items():
        with bar(local.name, local.stat().st_size if bars else 0) as on_progress:
            entry = await files.put(local, path, on_progress=on_progress)
        arrived.append(Arrived(entry.path, local, entry.size))
    return arrived


async def find_files(files: WorkspaceFiles, wanted: Sequence[str]) -> dict[str, FileEntry]:
    """What paths and patterns mean in a workspace, by the names that it gets under a folder of this machine.

    A path that is there means itself, whatever characters it has; ``.`` is all that is in the workspace. Links and
    special files in folders are left out, which is said.

    :raises FileMissing: one means nothing.
    :raises SandboxError: as :meth:`WorkspaceFiles.list`, or two would get one name.
    """
    found: dict[str, FileEntry] = {}
    everything: Sequence[FileEntry] | None = None
    for one in wanted:
        whole = all(part in ("", ".") for part in one.split("/"))
        entry = None if whole else await files.stat(one)
        if entry is not None and entry.kind != "folder":
            add(found, entry.path.rpartition("/")[2], entry)
            continue
        if whole:
            meant = {each.path: each for each in await files.list() if each.kind != "folder"}
        elif entry is not None:
            inside = await files.list(one)
            length = len(entry.path.rpartition("/")[0])
            meant = {each.path[length:].lstrip("/"): each for each in inside if each.kind != "folder"}
        elif is_pattern(one):
            everything = everything if everything is not None else await files.list()
            meant = chosen(everything, one)
            if not meant:
                raise FileMissing(
                    f"Nothing in the session matches {one!r}.", "`docker-interpreter files KEY` lists it."
                )
        else:
            raise FileMissing(f"There is no {one!r} in the session.", "`docker-interpreter files KEY` lists its files.")
        for name, each in meant.items():
            if each.kind == "file":
                add(found, name, each)
            else:
                complain(f"Left out: {one_line(each.path)} is {'a link' if each.kind == 'link' else 'no file'}.")
    return found


async def get_files(
    files: WorkspaceFiles, wanted: Mapping[str, FileEntry], folder: Path, *, force: bool
) -> list[Arrived]:
    """Get files of a workspace into a folder of this machine, by the names that they get there.

    :raises SandboxError: one is there already, and not to be replaced, and none was written; or as
        :meth:`WorkspaceFiles.download`, and those before it were.
    """
    places = {name: local_place(folder, name) for name in wanted}
    there = [place for place in places.values() if place.exists() or place.is_symlink()]
    if there and not force:
        others = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise SandboxError(f"{there[0]}{others} would be overwritten.", "--force does that.")
    arrived = []
    for name, entry in wanted.items():
        # looked at again: of two names a file system may make one
        place = local_place(folder, name)
        if not force and place.exists():
            raise SandboxError(f"{place} would be overwritten.", "--force does that.")
        arrived.append(await get_file(files, entry, place))
    return arrived


async def get_file(files: WorkspaceFiles, entry: FileEntry, place: Path) -> Arrived:
    """Get one file to a place on this machine.

    :raises SandboxError: as :meth:`WorkspaceFiles.download`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with bar(place.name, entry.size) as on_progress:
        got = await files.download(entry.path, place, on_progress=on_progress)
    return Arrived(entry.path, place, got.size)


def one_line(name: str) -> str:
    """A name that neither ends the line nor says anything to a terminal; it may hold any character."""
    return "".join(character if character.isprintable() else "�" for character in strip_escapes(name))


def lines(arrived: Sequence[Arrived], *, into: bool) -> Iterator[str]:
    """A line for each: what came from where, how large."""
    for one in arrived:
        name = f"{one.local} -> {one.path}" if into else f"{one.path} -> {one.local}"
        yield one_line(f"{name} ({readable_size(one.size)})")
