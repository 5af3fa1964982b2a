"""What a model is told about the tool that runs its code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .container_options import ContainerOptions
from .settings import Settings

TOOL_NAME: Final = "run_python"
CODE: Final = "code"
"""The name of its one parameter."""
MOST_FILES = 50
"""That are named; a model can list the rest."""
MOST_HOSTS = 30


def describe_tool(
    settings: Settings, *, files: Sequence[str] = (), timeout: float | None = None, images: bool = False
) -> str:
    """The description, for a session of these settings.

    ``files``: what was put into its workspace for this conversation. ``timeout``: seconds that a cell may run; None for
    no limit. ``images``: whether the model gets to see the pictures that cells show.
    """
    contained = settings.engine == "docker"
    limits = settings.limits
    sentences = [
        "Runs Python code as a cell of a notebook (IPython), in a session that lasts as long as the conversation, and"
        " returns what it puts out: what it prints, the value of its last expression, or the error with its traceback.",
        "Variables, imports and files stay from call to call: load data once, and go on with it in later calls.",
        "Files are in the working directory: use relative paths, read the user's files there, and write results there."
        + _named(files),
        "Plots appear when they are displayed, as matplotlib's are by plt.show()"
        + ("; you see them as well as the user." if images else "; the user sees them, you read only their size.")
        + " Don't print image data.",
        f"At most {limits.text_chars} characters of what a call puts out are returned, and the middle of what is longer"
        " is left out: print summaries, not whole tables.",
    ]
    if timeout is not None:
        sentences.append(
            f"A call that runs for more than {timeout:g} seconds is interrupted. Work on less at a time then."
        )
    if contained:
        sentences.extend(_network(settings.container))
    if contained:
        sentences.append("Memory is limited: of data that are large, read the columns and rows that are needed.")
    return "\n".join(f"- {sentence}" if number else sentence for number, sentence in enumerate(sentences))


def tool_schema(description: str) -> dict[str, object]:
    """The tool as OpenAI's chat completions take it: one function, with one parameter."""
    return {
        "type": "function",
        "function": {
            "name": TOOL_NAME,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {CODE: {"type": "string", "description": "The Python code to run."}},
                "required": [CODE],
                "additionalProperties": False,
            },
        },
    }


def _network(options: ContainerOptions) -> list[str]:
    if options.network == "none":
        return ["There is no network: nothing can be downloaded or installed, so use the packages there are."]
    if options.network == "full":
        return ["There is a network. `%pip install` installs what is missing."]
    hosts = options.allowed_hosts
    more = f" and {len(hosts) - MOST_HOSTS} more" if len(hosts) > MOST_HOSTS else ""
    sentence = (
        f"Of the network, these hosts alone can be reached, over HTTP and HTTPS: {', '.join(hosts[:MOST_HOSTS])}{more}."
        " Everything else is refused (403). urllib, requests, httpx and pip use the proxy that the environment names"
        " by themselves."
    )
    if "pypi.org" in hosts:
        sentence += " `%pip install` installs what is missing."
    return [sentence]


def _named(files: Sequence[str]) -> str:
    if not files:
        return ""
    more = f" and {len(files) - MOST_FILES} more" if len(files) > MOST_FILES else ""
    return f" The user has put there: {', '.join(map(repr, files[:MOST_FILES]))}{more}."
