"""``tool check`` and ``tool show``: the tool's file as Open WebUI would take it."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_manager.single_file import write

from .conftest import ROOT, CommandLine

TEXT = (ROOT / "openwebui_tool.py").read_text()


def test_the_tool_that_comes_along_is_fine(alone: CommandLine) -> None:
    done = alone("tool", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    for name in ("frontmatter", "run_python_code", "variables stay", "restart_python", "clean up"):
        assert f"{name} " in done.stdout
    assert alone("sessions", "list", "--all", "--json").stdout.strip() == "[]", "nothing is left of it"


def test_of_a_file_with_the_package_inside_that_package_is_checked(alone: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "single.py"
    write(file)
    text = file.read_text()
    done = alone("tool", "check", file.name)
    assert done.returncode == 0, done.stdout + done.stderr
    # the package inside it is another than the one that is installed
    old = 'words = {"ok": "Done"'
    assert old in text
    file.write_text(text.replace(old, "raise ValueError('the package inside')\n    " + old))
    done = alone("tool", "check", file.name)
    assert done.returncode == 1 and "the package inside" in done.stdout


def test_it_can_be_shown_to_be_pasted(cli: CommandLine) -> None:
    assert cli("tool", "show").stdout == TEXT


def test_it_can_be_shown_with_another_requirement(cli: CommandLine) -> None:
    shown = cli("tool", "show", "--requirement", "/wheels/it-1-py3-none-any.whl").stdout
    old = next(line for line in TEXT.splitlines() if line.startswith("requirements:"))
    assert shown == TEXT.replace(old, "requirements: /wheels/it-1-py3-none-any.whl")
    refused = cli("tool", "show", "--requirement", "a,b")
    assert refused.returncode == 1 and "splits requirements at commas" in refused.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"""\ntitle', '"""title', "first line"),
        ("version: 0.1.0", "", "no version"),
        ("docker~=7.1", "docker>=7.1", "half of one"),
        ("import time\n", "import time  # taken from config\n", "Line"),
        ("running: set", "def restart_python(self) -> str:\n    'It blocks.'\n    return ''\n\n\n"
         "Tools.restart_python = restart_python\nrunning: set", "hold the server up"),
        ("    async def list_python_files(", "    async def extra(self) -> str:\n        ...\n\n"
         "    async def list_python_files(", "It offers"),
        ("class Tools:", "class Tools(:", "invalid syntax"),
        ("return await call.guarded(call.restart)", "return 'nothing'", "It says: nothing"),
    ],
)  # fmt: skip
def test_what_open_webui_would_stumble_over(alone: CommandLine, tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    (tmp_path / "broken.py").write_text(TEXT.replace(old, new, 1))
    done = alone("tool", "check", "broken.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed" in done.stdout and words in " ".join(done.stdout.split())


def test_a_file_that_is_not_there(cli: CommandLine) -> None:
    done = cli("tool", "check", "nowhere.py")
    assert done.returncode == 125 and "nowhere.py" in done.stderr
