"""The commands of the group ``sessions`` as they are typed. What they do is in ``sessions`` and ``one_session``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    IMAGE_DIR,
    Common,
    Config,
    Debug,
    DockerHost,
    Engine,
    ImageDir,
    Json,
    Owner,
    combine,
)

sessions_app = typer.Typer(help="Show sessions, look into them, copy or end them.", invoke_without_command=True)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Stopped = Annotated[bool, typer.Option("--all", help="Also sessions that do not run any more, and have files.")]
Key = Annotated[str, typer.Argument(metavar="KEY", show_default=False, help="The session.")]


def show_sessions(common: Common, owner: str | None, stopped: bool, as_json: bool) -> None:
    """``sessions`` and ``sessions list`` are the same."""
    from .exits import run_async_to_exit
    from .sessions import list_sessions

    run_async_to_exit(
        lambda: list_sessions(common.settings(), owner=owner, stopped=stopped, as_json=as_json),
        debug=common.debug,
    )


@sessions_app.callback()
def sessions(
    context: typer.Context,
    owner: Owner = None,
    stopped: Stopped = False,
    as_json: Json = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show sessions (that is what it does alone, too), look into them, copy or end them."""
    context.obj = combine(context, engine, docker_host, config, debug)
    if context.invoked_subcommand is None:
        show_sessions(context.obj, owner, stopped, as_json)
    elif owner is not None or stopped or as_json:
        raise typer.BadParameter(f"--owner, --all and --json belong after {context.invoked_subcommand!r}.")


@sessions_app.command("list")
def list_(
    context: typer.Context,
    owner: Owner = None,
    stopped: Stopped = False,
    as_json: Json = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show the sessions that run: key, owner, status, age, time without a cell, memory in use, image."""
    show_sessions(combine(context, engine, docker_host, config, debug), owner, stopped, as_json)


@sessions_app.command()
def stop(
    context: typer.Context,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", show_default=False, help="The sessions to end.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="End all of them, of every owner, and containers that wait for one; or all of --owner."
        ),
    ] = False,
    owner: Owner = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove their files too, for good.")] = False,
    yes: Yes = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """End sessions. Their files stay for the next session of the same key, unless --purge is given."""
    from .exits import run_async_to_exit
    from .sessions import stop_all, stop_sessions

    common = combine(context, engine, docker_host, config, debug)
    if every == bool(keys):
        raise typer.BadParameter("Name the sessions to end, or give --all.")
    if purge and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("--purge removes files for good: give --yes too.")
        of = "" if owner is None else f" of {owner!r}"
        whose = f"every session{of}, also of those that ended" if every else f"{', '.join(map(repr, keys or ()))}{of}"
        if not typer.confirm(f"Remove the files of {whose}, for good?", err=True):
            raise typer.Exit(1)
    run_async_to_exit(
        lambda: (
            stop_all(common.settings(), owner=owner, purge=purge)
            if every
            else stop_sessions(common.settings(), keys or (), owner=owner or "", purge=purge)
        ),
        debug=common.debug,
    )


@sessions_app.command()
def follow(
    context: typer.Context,
    key: Key,
    owner: Owner = None,
    as_json: Json = False,
    image_dir: ImageDir = IMAGE_DIR,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show the cell that runs in a session, whoever started it, to its end; or the last, where none runs.

    Ctrl-C ends the showing, and leaves the cell running. Exit codes are those of
    `run`; 125 also where no such session runs, or no cell has run in it.
    """
    from .exits import SANDBOX_FAILED, run_async_to_exit
    from .one_session import follow as follow_cell

    common = combine(context, engine, docker_host, config, debug)
    run_async_to_exit(
        lambda: follow_cell(common.settings(), key, image_dir, owner=owner or "", as_json=as_json),
        debug=common.debug,
        failed=SANDBOX_FAILED,
    )


@sessions_app.command()
def interrupt(
    context: typer.Context,
    key: Key,
    owner: Owner = None,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Interrupt the cell that runs in a session, whoever runs it. Variables are kept."""
    from .exits import run_async_to_exit
    from .one_session import interrupt as interrupt_cell

    common = combine(context, engine, docker_host, config, debug)
    run_async_to_exit(lambda: interrupt_cell(common.settings(), key, owner=owner or ""), debug=common.debug)


@sessions_app.command()
def variables(
    context: typer.Context,
    key: Key,
    owner: Owner = None,
    as_json: Json = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show a session's variables: name, type, size, shape and value; also while a cell runs."""
    from .exits import run_async_to_exit
    from .one_session import variables as show_variables

    common = combine(context, engine, docker_host, config, debug)
    run_async_to_exit(
        lambda: show_variables(common.settings(), key, owner=owner or "", as_json=as_json),
        debug=common.debug,
    )


@sessions_app.command()
def save(
    context: typer.Context,
    key: Key,
    owner: Owner = None,
    as_json: Json = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Save a session's variables in its workspace, for the next session of its key; waits for a cell that runs."""
    from .exits import run_async_to_exit
    from .one_session import save as save_variables

    common = combine(context, engine, docker_host, config, debug)
    run_async_to_exit(
        lambda: save_variables(common.settings(), key, owner=owner or "", as_json=as_json),
        debug=common.debug,
    )


@sessions_app.command()
def fork(
    context: typer.Context,
    key: Key,
    new_key: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="The copy's key.")],
    owner: Owner = None,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Copy a session, files and variables, so that a second path can be tried without losing the first."""
    from .exits import run_async_to_exit
    from .one_session import fork as fork_session

    common = combine(context, engine, docker_host, config, debug)
    run_async_to_exit(lambda: fork_session(common.settings(), key, new_key, owner=owner or ""), debug=common.debug)


@sessions_app.command()
def export(
    context: typer.Context,
    key: Key,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            show_default=False,
            help="A notebook (.ipynb), a page (.html) or the journal itself (.jsonl), which `replay` takes too; "
            "- for a notebook on standard output. Default: KEY.ipynb.",
        ),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also a page of the same name, .html, that needs nothing else.")
    ] = False,
    owner: Owner = None,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Write what ran in a session as a notebook: code, outputs, plots, errors; also after the session has ended.

    Pages need the extra: pip install 'docker-interpreter[notebook]'
    """
    from .exits import run_async_to_exit
    from .export import STANDARD_OUTPUT, SUFFIXES
    from .export import export as export_session

    common = combine(context, engine, docker_host, config, debug)
    target = output or Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '-', key).strip('.-')[:100] or 'session'}.ipynb")
    if target != STANDARD_OUTPUT and target.suffix not in SUFFIXES:
        raise typer.BadParameter(f"{target} should end in .ipynb, .html or .jsonl.", param_hint="-o")
    if html and (target == STANDARD_OUTPUT or target.suffix == ".jsonl"):
        raise typer.BadParameter(f"--html belongs to a notebook or page, not to {target}.", param_hint="--html")
    run_async_to_exit(
        lambda: export_session(common.settings(), key, target, owner=owner or "", html=html),
        debug=common.debug,
    )
