"""The commands ``tool …``: Open WebUI's tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Debug, DockerHost, Engine, Image, combine

tool_app = typer.Typer(help="Check Open WebUI's tool, install it there, or show it to be pasted.", no_args_is_help=True)


@tool_app.command("check")
def check_tool(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", show_default=False, help="The tool's file. Default: the one that comes along."),
    ] = None,
    engine: Engine = None,
    docker_host: DockerHost = None,
    image: Image = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Load Open WebUI's tool as Open WebUI does, and call each of its methods in a session, which is removed."""
    from .exits import SANDBOX_FAILED, run_async_to_exit
    from .tool_check import check

    common = combine(context, engine, docker_host, config, debug, image)
    run_async_to_exit(lambda: check(common.settings(), file), debug=common.debug, failed=SANDBOX_FAILED)


@tool_app.command("show")
def show_tool(
    requirement: Annotated[
        str | None,
        typer.Option(
            "--requirement",
            metavar="REQUIREMENT",
            show_default=False,
            help="What Open WebUI is to install with pip, such as the path of a wheel that it sees. Default: what this "
            "package needs, but for the package itself.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print the tool's text, to be pasted into Open WebUI (Workspace, Tools)."""
    from .exits import run_to_exit
    from .tool_check import show

    run_to_exit(lambda: show(requirement), debug=debug)


@tool_app.command("install")
def install_tool(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where Open WebUI is, such as http://localhost:3000.")],
    name: Annotated[str, typer.Option("--id", metavar="ID", help="The tool's id there.")] = "python_sessions",
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            show_default=False,
            help="The tool's file, such as the one that `make tool` writes. Default: the one that comes along, which "
            "needs this package beside Open WebUI.",
        ),
    ] = None,
    valve: Annotated[
        list[str] | None,
        typer.Option("--valve", metavar="NAME=VALUE", show_default=False, help="A valve to set; can be repeated."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let every user use it, and not administrators only.")
    ] = False,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for Open WebUI.")] = 0.0,
    debug: Debug = False,
) -> None:
    """Put the tool into an Open WebUI, or change the one that is there.

    OPENWEBUI_EMAIL and OPENWEBUI_PASSWORD say which administrator does it,
    or OPENWEBUI_TOKEN, an API key of one. Valves that are not named stay as
    they are.
    """
    from .exits import run_to_exit
    from .tool_install import install

    run_to_exit(lambda: install(url, name, file, valve or [], public=public, wait=wait), debug=debug)
