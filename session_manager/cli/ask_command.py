"""The command ``ask`` as it is typed. What it does is in ``ask``."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    IMAGE_DIR,
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

ASK_CODES = """\
Exit codes:
0: the model has answered;
1: the limit of steps or of tokens was reached;
2: wrong usage;
125: the endpoint or the sandbox failed;
130: Ctrl-C.
The transcript is written, and the session and its files are kept, in each case.
"""
MOST_STEPS = 20
MOST_TOKENS = 500_000


def ask(
    context: typer.Context,
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", show_default=False, help="What to find out; - for standard input.")
    ],
    base_url: Annotated[
        str,
        typer.Option(
            "--base-url",
            metavar="URL",
            envvar="OPENAI_BASE_URL",
            show_default=False,
            help="The endpoint's address, such as http://localhost:11434/v1.",
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", show_default=False, help="The model, as the endpoint calls it.")
    ],
    file_to_put: FilesToPut = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            "-s",
            metavar="KEY",
            show_default=False,
            help="Let the code run in the session of this key, with its variables and files. "
            "Default: a new one, whose key is shown.",
        ),
    ] = None,
    owner: Owner = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.ipynb",
            show_default=False,
            help="Where the transcript goes, as a notebook; one that is there is replaced. "
            "Default: ask.ipynb, or the next name that is free.",
        ),
    ] = None,
    max_steps: Annotated[
        int,
        typer.Option("--max-steps", min=1, metavar="N", help="How often the model may call before it has to sum up."),
    ] = MOST_STEPS,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, metavar="N", help="Of all requests and replies together.")
    ] = MOST_TOKENS,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Show plots to the model, where the endpoint takes images.")
    ] = True,
    timeout: Timeout = None,
    as_json: Json = False,
    image_dir: ImageDir = IMAGE_DIR,
    engine: Engine = None,
    docker_host: DockerHost = None,
    image: Image = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Let a model answer a question by running Python in a session.

    The model, of any OpenAI-compatible endpoint, runs code as often as it
    needs, sees results, errors and plots, and mends its code. Each step is
    shown as it comes; the transcript is a notebook, which replay runs.

    The endpoint's key is read from DOCKER_INTERPRETER_API_KEY or
    OPENAI_API_KEY; a local endpoint may need none.
    """
    from .exits import SANDBOX_FAILED, run_async_to_exit

    common = combine(context, engine, docker_host, config, debug, image)
    if question == "-":
        try:
            question = sys.stdin.read()
        except UnicodeDecodeError:
            raise typer.BadParameter("Standard input is no UTF-8 text.", param_hint="QUESTION") from None
    if not question.strip():
        raise typer.BadParameter("There is no question in it.", param_hint="QUESTION")
    if output is not None and output.suffix != ".ipynb":
        raise typer.BadParameter(f"{output} should end in .ipynb.", param_hint="-o")

    def work() -> Coroutine[object, object, int]:
        from .ask import ask_model, take_key

        key = take_key()
        return ask_model(
            common.settings(),
            question,
            base_url,
            model,
            key,
            session=session,
            owner=owner or "",
            put=file_to_put or (),
            seconds=seconds(timeout),
            output=output,
            image_folder=image_dir,
            max_steps=max_steps,
            max_tokens=max_tokens,
            images=images,
            as_json=as_json,
        )

    run_async_to_exit(work, debug=common.debug, failed=SANDBOX_FAILED)
