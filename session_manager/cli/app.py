"""The commands as they are typed: names, options and help. What they do is in the other files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .ask_command import ASK_CODES, ask
from .file_commands import EPILOG, files
from .groups import engine_app, image_app, kernelspec_app
from .options import (
    IMAGE_DIR,
    Common,
    Config,
    Debug,
    DockerHost,
    Engine,
    FilesToPut,
    Image,
    ImageDir,
    Json,
    Owner,
    Timeout,
    combine,
    seconds,
)
from .replay_command import REPLAY_CODES, replay
from .session_commands import sessions_app
from .tool_commands import tool_app

RUN_CODES = """\
Exit codes:
0: the code ran;
1: it raised;
2: wrong usage;
124: it ran past its time limit and was interrupted; variables are kept;
125: the sandbox itself failed, or the engine went out of reach while the code ran,
or what --file or --get names could not be had;
130: Ctrl-C;
137: it was killed because interrupts did not stop it, or memory ran out,
or Python died, or the container was removed; variables are lost.
"""

app = typer.Typer(
    help="Run Python in sessions that remember: each an IPython kernel in a Docker container of its own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print the version of the installed distribution, and exit."""
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"docker-interpreter {version('docker-interpreter')}")
        except PackageNotFoundError:
            print("docker-interpreter, not installed")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    engine: Engine = None,
    docker_host: DockerHost = None,
    image: Image = None,
    config: Config = None,
    debug: Debug = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version),
    ] = False,
) -> None:
    """What every command takes, before its name."""
    context.obj = Common(engine, docker_host, image, config, debug)


@app.command(epilog=RUN_CODES, rich_help_panel="Sessions")
def run(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", show_default=False, help="A file of code; - for standard input."),
    ] = None,
    code: Annotated[str | None, typer.Option("-c", metavar="CODE", help="The code itself.", show_default=False)] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            "-s",
            metavar="KEY",
            show_default=False,
            help="Run in the session of this key, which is created if there is none, and goes on living.",
        ),
    ] = None,
    owner: Owner = None,
    timeout: Timeout = None,
    file_to_put: FilesToPut = None,
    get: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            "--get",
            metavar="PATTERN DIR",
            show_default=False,
            help="Files to take home into a folder afterwards, also where the code failed, such as 'out/*.png' "
            "plots; those of the same names there are replaced.",
        ),
    ] = None,
    as_json: Json = False,
    image_dir: ImageDir = IMAGE_DIR,
    engine: Engine = None,
    docker_host: DockerHost = None,
    image: Image = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Run Python code, in a new session that is thrown away afterwards, or in a named one that remembers.

    Output appears as it comes. Plots and other images are written to files,
    which the output names, and drawn where the terminal can do that
    (kitty, iTerm2, WezTerm, Ghostty).
    """
    from .exits import SANDBOX_FAILED, run_async_to_exit
    from .run import read_code, run_code

    common = combine(context, engine, docker_host, config, debug, image)
    source = read_code(code, file)
    run_async_to_exit(
        lambda: run_code(
            common.settings(),
            source,
            session,
            seconds(timeout),
            image_dir,
            owner=owner or "",
            as_json=as_json,
            put=file_to_put or (),
            get=get,
        ),
        debug=common.debug,
        failed=SANDBOX_FAILED,
    )


app.command("replay", epilog=REPLAY_CODES, rich_help_panel="Sessions")(replay)
app.command("ask", epilog=ASK_CODES, rich_help_panel="Sessions")(ask)
app.command("files", epilog=EPILOG, rich_help_panel="Sessions")(files)


@app.command(rich_help_panel="This machine")
def doctor(
    context: typer.Context,
    security: Annotated[
        bool, typer.Option("--security", help="Look at what holds a session in its container, and nothing else.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show where the time of a cell goes, hop by hop, and nothing else.")
    ] = False,
    as_json: Json = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    image: Image = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Check that everything a session needs works here, and say what to do where it does not.

    Runs in sessions of its own, which are removed. The exit code is 1 where
    something failed, or with --security where a promise is not kept.
    Warnings change nothing of it.
    """
    from .doctor import diagnose
    from .doctor_security import examine_security
    from .doctor_trace import trace_cells
    from .exits import run_async_to_exit

    if security and trace:
        raise typer.BadParameter("--security and --trace are two questions: ask one at a time.")
    common = combine(context, engine, docker_host, config, debug, image)
    examine = examine_security if security else trace_cells if trace else diagnose
    run_async_to_exit(lambda: examine(common.settings(), as_json=as_json), debug=common.debug)


app.add_typer(sessions_app, name="sessions", rich_help_panel="Sessions")
app.add_typer(image_app, name="image", rich_help_panel="This machine")
app.add_typer(engine_app, name="engine", rich_help_panel="This machine")
app.add_typer(kernelspec_app, name="kernelspec", rich_help_panel="This machine")
app.add_typer(tool_app, name="tool", rich_help_panel="This machine")
