"""The command ``ask``: a model answers a question by running Python in a session."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..ask.conversation import Conversation, Outcome, Watcher
from ..ask.endpoint import Endpoint
from ..ask.streaming import sound_text
from ..ask.transcript import Transcript, claim
from ..errors import SandboxError
from ..execution import Execution
from ..session import DEFAULT_TIMEOUT, Session
from ..settings import Settings
from ..settings_sources import KEY_VARIABLE
from ..tool_description import describe_tool
from .ask_steps import JsonSteps, ShownSteps, print_end
from .cells import open_manager, run_cell
from .exits import CTRL_C, FAILED
from .live import LiveOutput
from .pictures import PictureFiles
from .transfers import local_files, put_files

EXIT_CODES: dict[Outcome, int] = {"answered": 0, "steps": FAILED, "tokens": FAILED, "stopped": CTRL_C}
KEY_VARIABLES = (KEY_VARIABLE, "OPENAI_API_KEY")
TRANSCRIPT = Path("ask.ipynb")


def take_key() -> str | None:
    """The endpoint's key. It is taken out of the environment, which sessions in plain processes get as it is."""
    found = [os.environ.pop(name, "").strip() for name in KEY_VARIABLES]
    return next(filter(None, found), None)


@dataclass(slots=True)
class Asked:
    """What there is to say at the end, however that comes."""

    session: Session
    transcript: Transcript
    live: LiveOutput
    conversation: Conversation
    named: bool
    """The user has named the session, and knows how to find it."""
    as_json: bool

    async def run(self, question: str) -> int:
        """Ask, and say how it ended; the exit code.

        :raises SandboxError: the endpoint or the session failed, which the transcript says too.
        """
        outcome: Outcome | None = None
        error: SandboxError | None = None
        try:
            outcome = await self.conversation.ask(question)
        except asyncio.CancelledError:
            # Ctrl-C while the model spoke
            outcome = "stopped"
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        except SandboxError as failure:
            error = failure
            self.transcript.on_notice(str(failure))
            raise
        finally:
            self._end(outcome, error)
        return EXIT_CODES[outcome]

    def _end(self, outcome: Outcome | None, error: SandboxError | None) -> None:
        key = self.session.key
        if self.as_json:
            print_end(
                outcome=outcome or "failed",
                steps=self.conversation.steps,
                tokens=self.conversation.tokens,
                session=key,
                transcript=str(self.transcript.path),
                error=str(error) if error is not None else None,
            )
            return
        if outcome == "stopped":
            self.live.say("Stopped.")
        self.live.say(f"Transcript: {self.transcript.path}")
        if not self.named or outcome != "answered":
            self.live.say(f"The session and its files are kept: --session {key} goes on in it.")


async def ask_model(
    settings: Settings,
    question: str,
    base_url: str,
    model: str,
    api_key: str | None,
    *,
    session: str | None,
    owner: str,
    put: Sequence[Path],
    seconds: float | None,
    output: Path | None,
    image_folder: Path,
    max_steps: int,
    max_tokens: int,
    images: bool,
    as_json: bool,
) -> int:
    """Let the model answer, and show how it does; the command's exit code.

    ``session``: the key of the session that is used; None for a new one, which is kept too. ``put``: files of this
    machine that are put into it first. ``seconds``: as the session's ``timeout``. ``output``: the transcript's place.

    :raises EndpointError: the endpoint can't be asked, or broke off, or the model's replies can't be used.
    :raises SandboxError: as :meth:`SessionManager.session` and :meth:`Session.execute`; a file can't be put.
    """
    local = local_files(put)
    key = session or f"ask-{secrets.token_hex(3)}"
    pictures = PictureFiles(image_folder)
    live = LiveOutput(sys.stdout, sys.stderr, pictures)
    # an argument of the command line can have bytes that are no UTF-8, which no request can carry
    question, model = (sound_text([os.fsencode(text).decode("utf-8", "replace")]) for text in (question, model))
    async with Endpoint(base_url, model, api_key) as endpoint, open_manager(settings) as (manager, progress):
        sandbox = await manager.session(key, owner=owner)
        progress.stop()
        await put_files(sandbox.files, local)
        path = output or claim(TRANSCRIPT)
        transcript = Transcript(path, question, model=model, session=key, files=local)

        async def run(code: str) -> tuple[Execution, bool]:
            return await run_cell(sandbox, code, seconds, None if as_json else live, f"docker-interpreter ask, {model}")

        view: Watcher = JsonSteps(key, pictures) if as_json else ShownSteps(live)
        description = describe_tool(
            settings,
            files=list(local),
            timeout=settings.limits.timeout if seconds == DEFAULT_TIMEOUT else seconds,
            images=images,
        )
        conversation = Conversation(
            endpoint,
            run,
            (transcript, view),
            description=description,
            max_steps=max_steps,
            max_tokens=max_tokens,
            images=images,
        )
        return await Asked(sandbox, transcript, live, conversation, session is not None, as_json).run(question)
