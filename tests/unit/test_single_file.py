"""The tool as one file that carries the package: what is in it, and that it works where nothing else is."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from session_manager import unpacked_package
from session_manager.open_webui_loading import REWRITTEN, read_frontmatter, rewrite, rewritten_places
from session_manager.single_file import NotBuilt, as_literal, build, package_sources, tool_path, write

ROOT = Path(__file__).parents[2]
FRONT = '"""\ntitle: T\nrequirements: docker~=7.1\n"""\n'
LOADER = Path(unpacked_package.__file__).read_text()
PROBE = """
import json, sys
from pathlib import Path
from types import ModuleType

text = Path(sys.argv[1]).read_text()
module = ModuleType("tool_probe")
exec(compile(text, "<string>", "exec", dont_inherit=True), module.__dict__)
module.Tools()
import session_manager
from session_manager.chat import valves
from session_manager.images.context import ImageKind, image_reference
from session_manager.engine.process import KERNEL_IMAGE
print(json.dumps([
    session_manager.__file__, valves.__file__, str(KERNEL_IMAGE / "relay.py"), (KERNEL_IMAGE / "relay.py").is_file(),
    image_reference(ImageKind.EXAMPLE),
]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The single file, as `make tool` makes it."""
    file = tmp_path_factory.mktemp("dist") / "openwebui_tool.py"
    write(file)
    return file


def probe(file: Path, cache: Path) -> list[object]:
    """Load a file in a new process, in an empty folder, with the checkout nowhere on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(file)],
        capture_output=True,
        text=True,
        cwd=file.parent,
        env={**environment, "XDG_CACHE_HOME": str(cache), "TMPDIR": str(file.parent)},
    )
    assert run.returncode == 0, run.stderr
    return list(json.loads(run.stdout))


def test_open_webui_knows_it_for_a_tool_and_rewrites_nothing(built: Path) -> None:
    text = built.read_text()
    assert text.splitlines()[0] == '"""'
    assert read_frontmatter(text) == read_frontmatter(tool_path().read_text())
    assert rewrite(text) == text


def test_requirements_are_what_the_package_needs_and_pip_finds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[\[<>=~]", one)[0] for one in project["dependencies"]}
    stated = read_frontmatter(tool_path().read_text())["requirements"]
    assert {one.strip().split("~=")[0] for one in stated.split(",")} >= needed - {
        "pydantic",
        "pyyaml",
        "typing_extensions",
    }


def test_the_package_is_in_it_word_for_word(built: Path) -> None:
    carried = {
        ast.literal_eval(statement.targets[0].slice): ast.literal_eval(statement.value)
        for statement in ast.parse(built.read_text()).body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript)
    }
    assert carried == package_sources()
    for name in ("kernel_image/Dockerfile", "kernel_image/JOURNAL.md", "session_manager/replay/report.html.j2"):
        assert carried[name] == (ROOT / name).read_text()


def test_it_brings_its_own_package_where_nothing_else_is(built: Path, tmp_path: Path) -> None:
    package, valves, relay, is_there, image = probe(built, tmp_path)
    for file in (package, valves, relay):
        assert str(file).startswith(str(tmp_path))
    assert is_there
    assert str(image).startswith("docker-interpreter/data:")


def test_files_that_were_changed_are_not_run(built: Path, tmp_path: Path) -> None:
    first = Path(str(probe(built, tmp_path)[0]))
    first.write_text("raise SystemExit('tampered with')")
    second = Path(str(probe(built, tmp_path)[0]))
    assert second != first
    assert second.read_text() == (ROOT / "session_manager" / "__init__.py").read_text()


def test_a_folder_that_is_open_to_others_is_not_used(built: Path, tmp_path: Path) -> None:
    parent = Path(str(probe(built, tmp_path)[0])).parents[2]
    assert parent.parent == tmp_path
    parent.chmod(0o777)
    assert not str(probe(built, tmp_path)[0]).startswith(str(tmp_path))


def test_several_workers_at_once(built: Path, tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROBE, str(built)],
            stdout=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": "", "XDG_CACHE_HOME": str(tmp_path)},
        )
        for _ in range(4)
    ]
    found = {json.loads(worker.communicate()[0])[0] for worker in workers}
    assert len(found) == 1
    assert [one.name for one in Path(found.pop()).parents[2].iterdir()] == [
        one.name for one in tmp_path.glob("docker-interpreter-tool-*/*")
    ]
    assert len(list(tmp_path.glob("docker-interpreter-tool-*/*"))) == 1


@pytest.mark.parametrize("words", REWRITTEN)
def test_what_open_webui_would_rewrite_is_carried_in_other_words(words: str) -> None:
    text = f"def f():\n    {words} import x  # {words}uration\n"
    result = build(f"{FRONT}class Tools: ...\n", {"a.py": text}, LOADER)
    assert list(rewritten_places(result)) == []


@pytest.mark.parametrize("words", REWRITTEN)
def test_what_open_webui_would_rewrite_in_the_tool_itself_is_refused_with_its_place(words: str) -> None:
    with pytest.raises(NotBuilt, match=f"line 5: '{words}'"):
        build(f"{FRONT}# read {words}uration\n", {}, LOADER)


def test_what_is_no_tool_is_refused() -> None:
    with pytest.raises(NotBuilt, match="requirements"):
        build("class Tools: ...\n", {}, LOADER)


@given(st.text(st.sampled_from("'\\\"\nx{} ") | st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
@example("'''")
@example("\\''''")
def test_any_text_can_be_carried(text: str) -> None:
    assert ast.literal_eval(as_literal(text)) == text
