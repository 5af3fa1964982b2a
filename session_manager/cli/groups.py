"""The commands that come in groups: image, engine, kernelspec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Debug, DockerHost, Engine, Image, Json, combine

image_app = typer.Typer(help="Build the images that sessions run on, or show them.", no_args_is_help=True)
engine_app = typer.Typer(
    help="Start a container engine on a Debian or Ubuntu machine that has none, or stop it again.",
    no_args_is_help=True,
)
kernelspec_app = typer.Typer(
    help="Let Jupyter, nbclient and other Jupyter clients run their kernels in sessions.",
    no_args_is_help=True,
)

KernelName = Annotated[str, typer.Option("--name", metavar="NAME", help="The kernel's name in Jupyter.")]


@image_app.command("build")
def build_image(
    context: typer.Context,
    example: Annotated[bool, typer.Option("--example", help="The image with packages for data analysis.")] = False,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="The proxy of sessions that may reach listed hosts (network: allowlist).")
    ] = False,
    requirements: Annotated[
        Path | None,
        typer.Option(
            "--requirements",
            "-r",
            metavar="FILE",
            show_default=False,
            help="Put the packages of a requirements file into an image of your own, on the default one or, with "
            "--example, that one. Prints its reference, for the setting image.",
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it afresh, also where it is current.")] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="IMAGE",
            show_default=False,
            help="What the default image is built on. Default: python:3.12-slim, and where that can't be "
            "pulled, on Debian and Ubuntu, an image made from the distribution's packages.",
        ),
    ] = None,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Build an image, where there is no current one. Sessions do that themselves when they first need it."""
    from ..images import ImageKind
    from .exits import run_async_to_exit
    from .images import build_image as build

    if proxy and (example or requirements is not None):
        raise typer.BadParameter("--proxy goes with neither --example nor --requirements: no session runs on it.")
    common = combine(context, engine, docker_host, config, debug)
    kind = ImageKind.PROXY if proxy else ImageKind.EXAMPLE if example else ImageKind.DEFAULT
    run_async_to_exit(
        lambda: build(common.settings(), kind, rebuild=rebuild, base=base, requirements=requirements),
        debug=common.debug,
    )


@image_app.command("show")
def show_images(
    context: typer.Context,
    as_json: Json = False,
    engine: Engine = None,
    docker_host: DockerHost = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Show which of the images are built and current."""
    from .exits import run_async_to_exit
    from .images import show_images as show

    common = combine(context, engine, docker_host, config, debug)
    run_async_to_exit(lambda: show(common.settings(), as_json=as_json), debug=common.debug)


@engine_app.command("start")
def start_engine(
    context: typer.Context, docker_host: DockerHost = None, config: Config = None, debug: Debug = False
) -> None:
    """Make sure that a container engine answers.

    Where none does, and this is Debian or Ubuntu and you are root, the
    distribution's engine is installed and started.
    """
    from .engine import start
    from .exits import run_to_exit

    common = combine(context, None, docker_host, config, debug)
    run_to_exit(lambda: start(common.settings()), debug=common.debug)


@engine_app.command("stop")
def stop_engine(context: typer.Context, debug: Debug = False) -> None:
    """Stop the engine that `engine start` started, and no other. Sessions end with it."""
    from .engine import stop as stop_it
    from .exits import run_to_exit

    run_to_exit(stop_it, debug=combine(context, None, None, None, debug).debug)


@kernelspec_app.command("install")
def install_kernelspec(
    context: typer.Context,
    name: KernelName = "docker-interpreter",
    user: Annotated[bool, typer.Option("--user", help="Install it for this user (the default).")] = False,
    sys_prefix: Annotated[
        bool, typer.Option("--sys-prefix", help="Install it into this Python's environment.")
    ] = False,
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", metavar="DIR", show_default=False, help="Install it below this directory."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            "-s",
            metavar="KEY",
            show_default=False,
            help="Every kernel is the session of this key. Default: a session of its own for each kernel.",
        ),
    ] = None,
    image: Image = None,
    debug: Debug = False,
) -> None:
    """Write a kernelspec: the kernel that Jupyter offers by its name then runs in a session."""
    from .exits import run_to_exit
    from .kernelspec import install

    if user + sys_prefix + (prefix is not None) > 1:
        raise typer.BadParameter("Give one of --user, --sys-prefix and --prefix.")
    common = combine(context, None, None, None, debug, image)
    run_to_exit(
        lambda: install(name, session or "", common.image or "", prefix=prefix, sys_prefix=sys_prefix),
        debug=common.debug,
    )


@kernelspec_app.command("remove")
def remove_kernelspec(context: typer.Context, name: KernelName = "docker-interpreter", debug: Debug = False) -> None:
    """Remove a kernelspec that `kernelspec install` wrote."""
    from .exits import run_to_exit
    from .kernelspec import remove

    run_to_exit(lambda: remove(name), debug=combine(context, None, None, None, debug).debug)
