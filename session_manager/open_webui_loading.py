"""A tool's file, read as Open WebUI 0.12 reads it: its rules about the text, the bare module, and what models get.

They are written anew here, so that a tool can be checked where there is no Open WebUI.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from pydantic import Field, create_model

from .errors import SandboxError

QUOTES: Final = '"""'
REWRITTEN: Final = ("from utils", "from apps", "from main", "from config")
"""What Open WebUI replaces by the same below ``open_webui``, anywhere in a tool's text."""
_KEY = re.compile(r"^\s*([a-z_]+):\s*(.*)\s*$", re.IGNORECASE)
_PARAMETER = re.compile(r":param (\w+):\s*(.+)")


class ToolRefused(SandboxError):
    """Open WebUI would not take this file as a tool."""


@dataclass(frozen=True, slots=True)
class LoadedTool:
    """An instance of the ``Tools`` of a file, and what its first lines say."""

    instance: Any
    frontmatter: Mapping[str, str]
    module: types.ModuleType


def read_frontmatter(text: str) -> dict[str, str]:
    """The ``word: text`` lines of a file's docstring; none where the first line is anything but three quotes."""
    lines = text.splitlines()
    found: dict[str, str] = {}
    if not lines or lines[0].strip() != QUOTES:
        return found
    for line in lines[1:]:
        if QUOTES in line:
            break
        if match := _KEY.match(line):
            found[match[1]] = match[2].strip()
    return found


def rewritten_places(text: str) -> Iterator[tuple[int, str]]:
    """Where Open WebUI rewrites a text: the number of the line, from 1, and what stands there."""
    for number, line in enumerate(text.splitlines(), 1):
        for words in REWRITTEN:
            if words in line:
                yield number, words


def rewrite(text: str) -> str:
    """The text as Open WebUI stores and runs it."""
    for words in REWRITTEN:
        text = text.replace(words, words.replace("from ", "from open_webui."))
    return text


def load_tool(text: str, name: str = "python_sessions") -> LoadedTool:
    """Run a tool's text in a bare module: without a package, and without a file once it is loaded.

    :raises ToolRefused: it can't be run, or there is no class ``Tools`` in it that can be made without arguments. Open
        WebUI's page says 400 then, and no more.
    """
    text = rewrite(text)
    # a name of its own, and none in sys.modules afterwards: a tool that relies on either breaks there
    module = types.ModuleType(f"tool_{name}_{uuid.uuid4().hex}")
    descriptor, file = tempfile.mkstemp(prefix="tool-", suffix=".py")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as writer:
            writer.write(text)
        module.__dict__["__file__"] = file
        sys.modules[module.__name__] = module
        code = compile(text, "<string>", "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - which is what Open WebUI does with it
        tools = getattr(module, "Tools", None)
        if tools is None:
            raise ToolRefused("The file has no class Tools.")
        return LoadedTool(tools(), read_frontmatter(text), module)
    except ToolRefused:
        raise
    except Exception as error:
        raise ToolRefused(f"The file can't be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.modules.pop(module.__name__, None)
        Path(file).unlink()


def offered(instance: Any) -> list[Callable[..., Any]]:
    """The methods that a model is offered: every public callable of the instance that is no class."""
    found = [getattr(instance, name) for name in dir(instance) if not name.startswith("_")]
    return [one for one in found if callable(one) and not inspect.isclass(one)]


def description(docstring: str | None) -> str:
    """What a model reads of a docstring: all before its first ``:param`` or ``:return``."""
    return re.split(r":(?:param|return)", docstring or "", maxsplit=1)[0].strip()


def specification(method: Callable[..., Any]) -> dict[str, Any]:
    """What a model is told about a method, as a function of OpenAI's: name, description, parameters.

    Parameters that begin with two underscores are Open WebUI's to fill in, and are not in it.

    :raises ToolRefused: a type can't be told to a model.
    """
    explained = dict(_PARAMETER.findall(method.__doc__ or ""))
    fields: dict[str, Any] = {}
    try:
        types_of = get_type_hints(method)
        for name, parameter in inspect.signature(method).parameters.items():
            if not name.startswith("__"):
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[name] = (types_of.get(name, Any), Field(default, description=explained.get(name)))
        schema = create_model(method.__name__, **fields).model_json_schema()
    except Exception as error:
        raise ToolRefused(f"What {method.__name__} takes can't be told to a model: {error}") from error
    parameters = {
        "type": "object",
        "properties": schema.get("properties", {}),
        "required": schema.get("required", []),
    }
    return {"name": method.__name__, "description": description(method.__doc__), "parameters": parameters}
