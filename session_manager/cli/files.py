"""The command ``files``: what is in a session's workspace, and files into it and out of it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import typer
from rich.table import Table

from ..errors import FileMissing, SandboxError
from ..execution import readable_size
from ..registry import SessionName, read_registry
from ..settings import Settings
from ..workspace import FileEntry, WorkspaceFiles
from .cells import open_manager, without_pool
from .exits import FAILED, complain
from .sessions import onlooker
from .tables import plain, print_table
from .transfers import Arrived, bar, find_files, get_file, get_files, lines, local_files, one_line, put_files

STANDARD_OUTPUT = Path("-")


@contextlib.asynccontextmanager
async def files_of(settings: Settings, key: str, owner: str) -> AsyncIterator[WorkspaceFiles]:
    """The files of a session, whether or not it runs; nothing is started.

    :raises SandboxError: there is no such session.
    """
    async with onlooker(settings) as manager, manager.files(key, owner=owner) as files:
        yield files


async def list_files(
    settings: Settings, key: str, paths: Sequence[str], *, owner: str, everything: bool, as_json: bool
) -> int:
    """Show what is in the workspace, or in folders of it.

    :raises SandboxError: there is no such session, or no such path in it.
    """
    found: dict[str, FileEntry] = {}
    async with files_of(settings, key, owner) as files:
        for path in paths or ("",):
            entry = await files.stat(path) if path not in ("", ".") else None
            if path not in ("", ".") and entry is None:
                raise FileMissing(f"There is no {path!r} in the session.")
            if entry is None or entry.kind == "folder":
                inside = await files.list("" if entry is None else path, hidden=everything)
                found |= {each.path: each for each in inside}
            else:
                found[entry.path] = entry
    if as_json:
        print(json.dumps([{**asdict(entry), "mime": mime(entry)} for entry in found.values()]))
    elif found:
        print_table(table_of(list(found.values())))
    else:
        print("No files.")
    return 0


def mime(entry: FileEntry) -> str | None:
    """A file's type by its name; None for what is no file."""
    return entry.mime if entry.kind == "file" else None


def table_of(entries: Sequence[FileEntry]) -> Table:
    """The entries, one a row."""
    table = plain("kind", "size", "modified", "path")
    for entry in entries:
        path = entry.path + ("/" if entry.kind == "folder" else "")
        target = f" -> {entry.target}" if entry.target is not None else ""
        table.add_row(
            entry.kind,
            readable_size(entry.size) if entry.kind == "file" else "-",
            readable_moment(entry.modified),
            one_line(path + target),
        )
    return table


def readable_moment(seconds: float) -> str:
    """A Unix time as this machine's clock shows it. What came out of a container may be no time at all."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "-"


async def get(
    settings: Settings,
    key: str,
    wanted: Sequence[str],
    target: Path | None,
    *,
    owner: str,
    force: bool,
    as_json: bool,
) -> int:
    """Get files: one to ``target``, or, where that is None, into the folder that ``wanted`` ends with.

    :raises SandboxError: there is no such session or file, or one is here already and not to be replaced.
    """
    if target is not None:
        return await get_one(settings, key, wanted, target, owner=owner, force=force, as_json=as_json)
    remote, folder = (wanted, Path()) if len(wanted) == 1 else (wanted[:-1], Path(wanted[-1]))
    if folder.exists() and not folder.is_dir():
        raise SandboxError(f"{folder} is no folder.", "The last of several names says where to; -o names a file.")
    async with files_of(settings, key, owner) as files:
        arrived = await get_files(files, await find_files(files, remote), folder, force=force)
    show(arrived, into=False, as_json=as_json)
    return 0


async def get_one(
    settings: Settings, key: str, wanted: Sequence[str], target: Path, *, owner: str, force: bool, as_json: bool
) -> int:
    """Get the one file that ``wanted`` means to a place of this name, or to standard output (``-``).

    :raises SandboxError: as :func:`get`; or it means several.
    """
    if target != STANDARD_OUTPUT and not force and target.exists():  # noqa: ASYNC240 - nothing runs beside
        raise SandboxError(f"{target} would be overwritten.", "--force does that.")
    async with files_of(settings, key, owner) as files:
        found = list((await find_files(files, wanted)).values())
        if len(found) != 1:
            raise SandboxError(f"-o takes one file, and these are {len(found)}.", "Name a folder in its place.")
        if target == STANDARD_OUTPUT:
            with bar(found[0].path, found[0].size) as on_progress:
                await files.download(found[0].path, sys.stdout.buffer, on_progress=on_progress)
            sys.stdout.buffer.flush()
            return 0
        arrived = await get_file(files, found[0], target)
    show([arrived], into=False, as_json=as_json)
    return 0


def show(arrived: Sequence[Arrived], *, into: bool, as_json: bool) -> None:
    """What was transferred, for people or programs."""
    if as_json:
        print(json.dumps([{"path": one.path, "local": str(one.local), "size": one.size} for one in arrived]))
    else:
        for line in lines(arrived, into=into):
            print(line)
        if not arrived:
            print("No files.")


def sources_and_place(arguments: Sequence[str]) -> tuple[list[Path], str]:
    """What ``put`` takes: files and folders of this machine, and where they go; "" is the workspace itself.

    :raises typer.BadParameter: it could be read in two ways.
    """
    if len(arguments) == 1:
        return [Path(arguments[0])], ""
    *sources, place = arguments
    if len(arguments) == 2 and not place.endswith("/") and place != sources[0] and Path(place).is_file():
        raise typer.BadParameter(
            f"{place} is a file here too: put both with `{sources[0]} {place} .`, or one as `./{place}`."
            if not place.startswith("./")
            else f"{place} is a file here too."
        )
    return [Path(source) for source in sources], place


async def put(settings: Settings, key: str, arguments: Sequence[str], *, owner: str, as_json: bool) -> int:
    """Put files and folders into a session, which is created where there is none of this key.

    :raises SandboxError: a file is missing here, or can't be put.
    """
    sources, place = sources_and_place(arguments)
    local = local_files(sources)
    async with open_manager(without_pool(settings)) as (manager, progress):
        registry = await read_registry(manager.engine, settings.namespace)
        if registry.find(SessionName(settings.namespace, key, owner)) is None:
            session = await manager.session(key, owner=owner)
            progress.stop()
            arrived = await put_to(session.files, local, place)
        else:
            async with manager.files(key, owner=owner) as files:
                arrived = await put_to(files, local, place)
    show(arrived, into=True, as_json=as_json)
    return 0


async def put_to(files: WorkspaceFiles, local: dict[str, Path], place: str) -> list[Arrived]:
    """Put files where ``place`` says: into that folder, or, one file alone, under that name.

    :raises SandboxError: as :meth:`WorkspaceFiles.put`; or several files would get one name.
    """
    while place.startswith("./"):
        place = place[2:]
    if place in ("", "."):
        return await put_files(files, local)
    entry = None if place.endswith("/") else await files.stat(place)
    if place.endswith("/") or (entry is not None and entry.kind == "folder"):
        folder = place.rstrip("/")
        return await put_files(files, {f"{folder}/{name}": path for name, path in local.items()})
    names = list(local)
    if len(names) == 1 and "/" not in names[0]:
        return await put_files(files, {place: local[names[0]]})
    raise SandboxError(f"{place!r} is no folder of the session.", "With a slash at its end it becomes one.")


async def remove(
    settings: Settings, key: str, paths: Sequence[str], *, owner: str, recursive: bool, as_json: bool
) -> int:
    """Remove files, and with ``recursive`` folders; what can't be removed keeps none of the others.

    :raises SandboxError: there is no such session.
    """
    removed, code = [], 0
    async with files_of(settings, key, owner) as files:
        for path in paths:
            try:
                await files.remove(path, recursive=recursive)
            except SandboxError as error:
                complain(f"error: {error}")
                code = FAILED
            else:
                removed.append(path)
    if as_json:
        print(json.dumps(removed))
    else:
        for path in removed:
            print(f"Removed {one_line(path)}")
    return code
