"""Builds the tool as one file that carries this package in it: ``python -m session_manager.single_file OUT``.

For people who can only paste: whoever reads the file finds the package's source in it, as it is, file by file.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import SandboxError
from .open_webui_loading import QUOTES, REWRITTEN, read_frontmatter, rewritten_places

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
CARRIED = ("*.py", "*.j2", "*.md", "py.typed", "Dockerfile*", "requirements.txt")
NOT_CARRIED = ("session_manager/openwebui_tool.py",)
LOADER = "unpacked_package.py"
EXAMPLE = "Dockerfile.python.example"
HEADER = """

# ---------------------------------------------------------------------------------------------------------------------
# The Python package docker-interpreter, which does the work: its source, file by file. It is written to a private
# folder of this user when the tool is loaded. Made by `make tool`; to change it, change the package and make it again.
# ---------------------------------------------------------------------------------------------------------------------
"""


class NotBuilt(SandboxError):
    """The single file can't be made of these sources."""


def tool_path() -> Path:
    """Where the tool's file is: in the package where that was installed, at the top of a checkout otherwise."""
    installed = PACKAGE / "openwebui_tool.py"
    return installed if installed.is_file() else ROOT / "openwebui_tool.py"


def package_sources() -> dict[str, str]:
    """The files of the package by their paths, where ``/`` parts folders.

    :raises OSError: they can't be read.
    """
    found = {}
    for folder in ("session_manager", "kernel_image"):
        for pattern in CARRIED:
            for path in sorted((ROOT / folder).rglob(pattern)):
                name = path.relative_to(ROOT).as_posix()
                if name not in NOT_CARRIED:
                    found[name] = path.read_text(encoding="utf-8")
    # at the top of a checkout, beside kernel_image's files in a wheel: as in a wheel here
    example = f"kernel_image/{EXAMPLE}"
    if example not in found:
        found[example] = (ROOT / EXAMPLE).read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def as_literal(text: str) -> str:
    """A text as a string literal that can be read, in which Open WebUI finds nothing to rewrite.

    :raises NotBuilt: the literal would say something else.
    """
    body = text.replace("\\", "\\\\").replace("\0", "\\x00")
    body = re.sub(r"'{3,}|'+\Z", lambda quotes: "\\'" * len(quotes[0]), body)
    for words in REWRITTEN:
        body = body.replace(words, words.replace(" ", "\\x20"))
    literal = f"'''\\\n{body}'''"
    if ast.literal_eval(literal) != text:
        raise NotBuilt(f"A file can't be carried in a string: {text[:60]!r}")
    return literal


def build(tool: str, sources: Mapping[str, str], loader: str) -> str:
    """The single file: the tool's text as it is, then the package's sources, then what makes them importable.

    :raises NotBuilt: Open WebUI would rewrite a part of it, or not know it for a tool.
    """
    if not read_frontmatter(tool).get("requirements"):
        raise NotBuilt(f"The tool's first line has to be {QUOTES}, and a line below it `requirements: …`.")
    if places := [f"line {number}: {words!r}" for number, words in rewritten_places(f"{tool}\n{loader}")]:
        raise NotBuilt(f"Open WebUI would rewrite the tool's own text: {', '.join(places)}.", "Say it in other words.")
    pieces = [tool.rstrip("\n"), HEADER, "_SOURCES: dict[str, str] = {}\n"]
    pieces += [f"\n_SOURCES[{name!r}] = {as_literal(text)}\n" for name, text in sources.items()]
    pieces += ["\n\n", without_beginning(loader), "\n\n_install_package(_SOURCES)\ndel _SOURCES\n"]
    whole = "".join(pieces)
    if places := [f"line {number}: {words!r}" for number, words in rewritten_places(whole)]:
        raise NotBuilt(f"Open WebUI would rewrite the result: {', '.join(places)}.")
    compile(whole, "openwebui_tool.py", "exec", dont_inherit=True)
    return whole


def without_beginning(source: str) -> str:
    """A module's text without its docstring and its ``from __future__`` lines, which only a beginning may have."""
    body = ast.parse(source).body
    first = next(one for one in body if not isinstance(one, ast.Expr) and not is_future(one))
    return "".join(source.splitlines(keepends=True)[first.lineno - 1 :])


def is_future(statement: ast.stmt) -> bool:
    """Whether it is a ``from __future__ import``."""
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def write(target: Path) -> int:
    """Build the single file of what is installed, or checked out, and write it; the number of its characters.

    :raises NotBuilt: see :func:`build`.
    :raises OSError: a file can't be read or written.
    """
    loader = (PACKAGE / LOADER).read_text(encoding="utf-8")
    whole = build(tool_path().read_text(encoding="utf-8"), package_sources(), loader)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(whole, encoding="utf-8")
    return len(whole)


def main(arguments: list[str]) -> int:
    """The command: where to write it."""
    if len(arguments) != 1:
        print("usage: python -m session_manager.single_file OUT", file=sys.stderr)
        return 2
    try:
        characters = write(Path(arguments[0]))
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments[0]}: {characters} characters, to be pasted into Open WebUI (Workspace, Tools)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
