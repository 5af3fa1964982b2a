"""The command ``files`` as it is typed. What it does is in ``files``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Config, Debug, DockerHost, Engine, Json, Owner, combine

if TYPE_CHECKING:
    from ..settings import Settings

VERBS = ("ls", "get", "put", "rm")
VERB_HELP = """\
files KEY [ls [PATH...]]: what there is; of folders, all that is in them.

files KEY get REMOTE... [DIR]: takes files home, into the current folder, or, where there are several names, into the
last. REMOTE is a file, a folder, a pattern, which belongs in quotes ('out/*.png', '**/*.csv'), or . for all there is.
With -o, one file under a name of its own; -o - writes it to standard output.

files KEY put LOCAL... [DEST]: puts files and folders into the session, which is created if there is none. Of several
names the last says where to: a folder of the session (`data/`, or `.` for the workspace), or one file's new name.
A file of that name is replaced.

files KEY rm PATH... [-r]: removes files; with -r folders, and all that is in them.
"""
EPILOG = """\
A name that begins with a dash goes behind --. Works while a cell runs, and on a session that has ended and left files.

Exit codes: 0: done; 1: something could not be done, and why is on standard error; 2: wrong usage; 130: Ctrl-C.
"""


def files(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", show_default=False, help="The session.")],
    verb: Annotated[str, typer.Argument(metavar="[ls|get|put|rm]", show_default=False, help="What to do.")] = "ls",
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAMES]...", show_default=False, help="Files; see above.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="LOCAL", show_default=False, help="get: this name for the one file."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="get: overwrite files that are here.")] = False,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="rm: folders too.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="ls: also what the session keeps for itself.")
    ] = False,
    owner: Owner = None,
    as_json: Json = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show a session's files, get them, put some, or remove them."""
    from . import files as verbs
    from .exits import run_async_to_exit

    wanted = names or []
    belongs = {"-o": (output is not None, "get"), "--force": (force, "get"), "-r": (recursive, "rm")}
    for option, (given, its_verb) in {**belongs, "--all": (everything, "ls")}.items():
        if given and verb != its_verb:
            raise typer.BadParameter(f"{option} belongs to {its_verb}.")
    if verb not in VERBS:
        raise typer.BadParameter(f"{verb!r} is none of {', '.join(VERBS)}.")
    if verb != "ls" and not wanted:
        raise typer.BadParameter(f"Name the files to {verb}.")
    common = combine(context, engine, docker_host, config, debug)
    whose = owner or ""
    if verb == "put":
        verbs.sources_and_place(wanted)
    works: dict[str, Callable[[Settings], Coroutine[object, object, int]]] = {
        "ls": lambda to: verbs.list_files(to, key, wanted, owner=whose, everything=everything, as_json=as_json),
        "get": lambda to: verbs.get(to, key, wanted, output, owner=whose, force=force, as_json=as_json),
        "put": lambda to: verbs.put(to, key, wanted, owner=whose, as_json=as_json),
        "rm": lambda to: verbs.remove(to, key, wanted, owner=whose, recursive=recursive, as_json=as_json),
    }
    run_async_to_exit(lambda: works[verb](common.settings()), debug=common.debug)


files.__doc__ = f"{files.__doc__}\n\n{VERB_HELP}"
