"""An OpenAI-compatible endpoint, through the official client; its errors as sentences of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from ..errors import EndpointError, EndpointRefused, HostError
from ..outputs import strip_escapes
from ..settings_sources import KEY_VARIABLE
from .conversation import Message
from .streaming import Delta, Reply

try:
    import openai
except ImportError:
    raise HostError(
        "Asking a model needs the openai package.", "Install it: `pip install 'docker-interpreter[ask]'`."
    ) from None

CONNECT_SECONDS = 15.0
SILENCE_SECONDS = 600.0
"""How long an endpoint may send nothing: a local model may read a long conversation for minutes."""
RETRIES = 2
"""Of requests that were refused for a while, or did not arrive. A reply that has begun is never asked for again."""
NO_KEY = "none"
"""What is sent to endpoints that want no key: the client insists on one."""
LONGEST_QUOTE = 500
"""Characters of an endpoint's own words that are shown."""
KEY_REMEDY = f"Set OPENAI_API_KEY or {KEY_VARIABLE} in the environment."
TOO_LONG = (
    "context length",
    "context_length",
    "context window",
    "context size",
    "maximum context",
    "prompt is too long",
    "too many tokens",
)
"""What endpoints say of a conversation that is too long for the model."""
SAYS_IMAGES = ("image", "vision", "multimodal", "modalit")
NO_TOOLS = ("support tools", "support tool", "support function calling", "tool use", "tool_choice", "tool choice")


class Endpoint:
    """One model of one endpoint. Use it as an async context manager."""

    def __init__(self, base_url: str, model: str, key: str | None) -> None:
        """``key``: None for endpoints that want none.

        :raises EndpointError: the address or the key can't be one.
        """
        self.base_url = _shown(base_url)
        """As it is shown: without a password that is in it."""
        self.model = model
        self._key = key.strip() if key else ""
        if not self._key.isascii() or not self._key.isprintable():
            raise EndpointError("The key for the endpoint has characters that no key has.", KEY_REMEDY)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or NO_KEY,
            base_url=base_url,
            timeout=openai.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            max_retries=RETRIES,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[dict[str, object]], reply: Reply
    ) -> AsyncIterator[Delta]:
        """Ask for a reply, which ``reply`` collects; what each chunk adds for people, as it comes.

        :raises EndpointRefused: it does not take the messages as they are.
        :raises EndpointError: it can't be asked, or did not reply to the end.
        """
        body: dict[str, object] = {
            "model": self.model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if tools:
            body["tools"] = list(tools)
        begun = False
        try:
            # as plain JSON, not as the client's models of it: endpoints send what those don't foresee
            stream = await self._client.post(
                "/chat/completions", cast_to=object, body=body, stream=True, stream_cls=openai.AsyncStream[object]
            )
            async with stream:
                begun = True
                async for chunk in stream:
                    try:
                        delta = reply.feed(chunk)
                    except ValueError as error:
                        raise EndpointError(f"The model's reply can't be used: {error}.") from None
                    yield delta
        except openai.OpenAIError as error:
            raise self._explained(error, begun) from error
        except (ValueError, RecursionError) as error:
            # the client parses the chunks' JSON, and lets the parser's errors through
            raise EndpointError(
                f"The endpoint {self.base_url} sent something that is no chat completion.",
                "Check --base-url, which often ends in /v1.",
            ) from error
        if reply.finish_reason is None:
            raise _dropped(self.base_url)

    def _explained(self, error: openai.OpenAIError, begun: bool) -> EndpointError:
        """The client's error as one of ours."""
        if isinstance(error, openai.APIStatusError):
            return self._refused(error.status_code, error.code, self._quoted(error))
        if isinstance(error, openai.APITimeoutError):
            return EndpointError(f"The endpoint {self.base_url} has sent nothing for too long.", "Try again later.")
        if isinstance(error, openai.APIConnectionError):
            if begun:
                return _dropped(self.base_url)
            cause = self._plain(str(error.__cause__ or error)).rstrip(".")
            return EndpointError(
                f"No endpoint answers at {self.base_url} ({cause}).", "Check --base-url, and that it runs."
            )
        quoted = self._quoted(error)
        if isinstance(error, openai.APIError) and _says(quoted, TOO_LONG):
            return _too_long(quoted)
        return EndpointError(f"The endpoint {self.base_url} broke its reply off with an error{quoted}.")

    def _refused(self, status: int, code: str | None, quoted: str) -> EndpointError:
        """An answer with an HTTP status that is an error's."""
        if status == 401:
            if self._key:
                return EndpointError(f"The endpoint {self.base_url} does not accept the key{quoted}.", KEY_REMEDY)
            return EndpointError(f"The endpoint {self.base_url} wants a key, and none is set{quoted}.", KEY_REMEDY)
        if status in (402, 403):
            return EndpointError(
                f"The endpoint {self.base_url} does not let this key use the model {self.model!r}{quoted}."
            )
        if status in (400, 413, 422, 500) and (_says(quoted, TOO_LONG) or code in ("context_length_exceeded",)):
            return _too_long(quoted)
        if status in (404, 500, 501) and _says(quoted, SAYS_IMAGES):
            return EndpointRefused(f"The endpoint {self.base_url} does not take images{quoted}.")
        if status == 404 and (code == "model_not_found" or _says(quoted, ("model", self.model.lower()))):
            return EndpointError(
                f"The endpoint {self.base_url} has no model {self.model!r}{quoted}.",
                "Check --model: the endpoint's page /models lists those it has.",
            )
        if status in (404, 405):
            return EndpointError(
                f"There is no chat completions endpoint at {self.base_url} (status {status}{quoted}).",
                "Check --base-url, which often ends in /v1.",
            )
        if status == 429:
            return EndpointError(
                f"The endpoint {self.base_url} takes no more requests for now{quoted}.",
                "Try again later, or look at the account's limits.",
            )
        if status >= 500:
            return EndpointError(f"The endpoint {self.base_url} failed (status {status}{quoted}).", "Try again later.")
        remedy = "Choose a model that can call tools." if _says(quoted, NO_TOOLS) else None
        return EndpointRefused(f"The endpoint {self.base_url} refused the request (status {status}{quoted}).", remedy)

    def _quoted(self, error: openai.OpenAIError) -> str:
        """What the endpoint itself said, behind a colon; "" where it said nothing."""
        body = error.body if isinstance(error, openai.APIError) else None
        said = body.get("message", body.get("detail")) if isinstance(body, dict) else body
        if said is None and isinstance(error, openai.APIError):
            said = error.message
        text = self._plain(said if isinstance(said, str) else str(said or "")).rstrip(".")
        return f": {text}" if text else ""

    def _plain(self, text: str) -> str:
        """Words of an endpoint on one line, without the key, which some repeat."""
        if self._key:
            text = text.replace(self._key, "…")
        text = " ".join(strip_escapes(text[: 4 * LONGEST_QUOTE]).split())
        return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"


def _dropped(base_url: str) -> EndpointError:
    return EndpointError(f"The endpoint {base_url} broke off in the middle of its reply.", "Ask again.")


def _too_long(quoted: str) -> EndpointError:
    return EndpointError(
        f"The conversation has become longer than the model can read{quoted}.",
        "Ask for less at a time, or let cells return less (limits.text_chars).",
    )


def _says(quoted: str, words: Sequence[str]) -> bool:
    return any(word in quoted.lower() for word in words)


def _shown(base_url: str) -> str:
    """The address as it can be shown, without name and password.

    :raises EndpointError: it can be no endpoint's.
    """
    parts = None
    with suppress(ValueError):
        parts = urlsplit(base_url)
        if parts.port == 0:
            parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or not base_url.isprintable():
        raise EndpointError(
            f"{base_url[:200]!r} is no address of an endpoint.", "It looks like http://localhost:11434/v1."
        )
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
