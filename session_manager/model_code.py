"""The code in a tool call's arguments, as models really write them."""

from __future__ import annotations

import json
import re
import textwrap

from .outputs.typed import clean_str

MOST_CHARACTERS = 1_000_000
MOST_LAYERS = 4
"""Of JSON in JSON that are taken off."""
WANTED = 'Call it again with one JSON object, {"code": "…"}: newlines in the code as \\n, quotes as \\".'
FENCE = "```"
LANGUAGE = re.compile(r"[A-Za-z0-9_.+-]{0,20}[ \t]{0,20}")


def code_of(arguments: str) -> str:
    """The code to run. Takes, beside ``{"code": "…"}``: real newlines in the string, JSON in JSON, code in a fence of
    Markdown, and bare code.

    :raises ValueError: there is no telling what was meant. The message is for the model, which can mend its call.
    """
    if len(arguments) > MOST_CHARACTERS:
        raise ValueError(f"The call has {len(arguments)} characters, and at most {MOST_CHARACTERS} are taken.")
    code = _layers_off(arguments)
    if not code.strip():
        raise ValueError(f"The call has no code. {WANTED}")
    return clean_str(code)


def plain_code(text: str) -> str:
    """The code in a parameter that should be code alone: without a fence of Markdown, or stray indentation."""
    return textwrap.dedent(_without_fence(text)).strip("\n")


def _layers_off(text: str) -> str:
    for _ in range(MOST_LAYERS):
        text = _without_fence(text)
        # some endpoints begin with the arguments of a call that has none, and then send those it has
        bare = text.strip()
        if (rest := bare.removeprefix("{}").lstrip()).startswith("{"):
            bare = rest
        if not bare.startswith(("{", "[", '"')):
            return text
        value = _parse(bare)
        if isinstance(value, dict):
            return _without_fence(_code_in(value))
        if not isinstance(value, str):
            raise ValueError(f"The call's arguments are a list, not an object. {WANTED}")
        text = value
    raise ValueError(f"The call's arguments are JSON in JSON, too many times. {WANTED}")


def _parse(text: str) -> object:
    try:
        return json.loads(text, strict=False)  # which lets control characters, such as newlines, be in strings
    except RecursionError:
        raise ValueError(f"The call's arguments are nested too deeply. {WANTED}") from None
    except json.JSONDecodeError as error:
        if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
            raise ValueError(f"The call's arguments end in the middle: the code was cut off. {WANTED}") from None
        reason = f"{error.msg} at character {error.pos}"
        raise ValueError(f"The call's arguments are no JSON ({reason}). {WANTED}") from None
    except ValueError:  # a number of thousands of digits
        raise ValueError(f"The call's arguments are no JSON that can be read. {WANTED}") from None


def _code_in(value: dict[str, object]) -> str:
    if isinstance(code := value.get("code"), str):
        return code
    texts = [one for one in value.values() if isinstance(one, str)]
    if "code" not in value and len(texts) == 1:
        return texts[0]  # under a name of the model's own
    if isinstance(code, list) and all(isinstance(line, str) for line in code):
        return "\n".join(str(line).removesuffix("\n") for line in code)
    names = ", ".join(map(repr, list(value)[:5])) or "nothing"
    raise ValueError(f"The call's arguments have no text named 'code', but {names[:200]}. {WANTED}")


def _without_fence(text: str) -> str:
    """The code in a Markdown fence, where the text is one fence and nothing else."""
    bare = text.strip()
    if not bare.startswith(FENCE) or "\n" not in bare:
        return text
    language, _, body = bare.removeprefix(FENCE).partition("\n")
    if not LANGUAGE.fullmatch(language.rstrip("\r")):
        return text
    body = body.removesuffix(FENCE)
    return text if f"\n{FENCE}" in f"\n{body}" else body.removesuffix("\n")
