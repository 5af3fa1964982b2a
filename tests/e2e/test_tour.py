"""The README's tour, word for word, on containers; and what it leaves, seen in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "build" / "e2e"
"""Where what the browser shows is left, for people to look at."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 300


def tour() -> list[str]:
    """The lines of the README's tour."""
    section = (ROOT / "README.md").read_text().partition("\n## A tour\n")[2].partition("\n## ")[0]
    found = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert found is not None, "the README has a tour"
    return found[1].splitlines()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The command on the PATH, and a namespace of this test's own, whose sessions are removed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DOCKER_INTERPRETER_")},
        "PATH": path,
        "DOCKER_INTERPRETER_NAMESPACE": f"tour-{os.getpid()}-{secrets.token_hex(3)}",
        "DOCKER_INTERPRETER_STATE_DIR": str(tmp_path_factory.mktemp("state")),
    }
    yield own
    subprocess.run(
        ["docker-interpreter", "sessions", "stop", "--all", "--purge", "--yes"], env=own, timeout=SECONDS, check=True
    )


@pytest.fixture(scope="module")
def toured(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder in which the tour was made, and what each of its lines said."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / "examples").symlink_to(ROOT / "examples")
    said: dict[str, str] = {}
    settings = dict(environment)
    for line in tour():
        if set_here := re.fullmatch(r"export (\w+)=(\S+)", line):
            settings[set_here[1]] = set_here[2]
            continue
        done = subprocess.run(
            ["bash", "-euc", line], cwd=folder, env=settings, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said[line] = done.stdout
    return folder, said


def shown(page: Path, width: int) -> Image.Image:
    """What a browser of this width shows of a page; also left as a file."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser is not None, "a browser is needed: `make browser` installs one on Debian and Ubuntu, as root"
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"{page.stem}-{width}.png"
    picture.unlink(missing_ok=True)
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={page.parent / 'browser'}", f"--window-size={width},2400"),
            *(f"--screenshot={picture}", page.as_uri()),
        ],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    return Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")


@pytest.mark.timeout(1200)
def test_it_has_ten_lines_and_all_work(toured: tuple[Path, dict[str, str]]) -> None:
    folder, said = toured
    assert len(tour()) <= 10
    lines = list(said)
    cells = [line for line in lines if " run " in line]
    assert len(cells) == 3
    assert "(26115, 15)" in said[cells[0]]
    assert "month" in said[cells[1]]
    with Image.open(folder / "rain.png") as plot:
        assert plot.format == "PNG" and plot.width > 300
    (replayed,) = (line for line in lines if " replay " in line)
    assert "3 of 3 cells put out what was recorded" in said[replayed]


@pytest.mark.timeout(1200)
def test_the_notebook_is_one_that_jupyter_opens(toured: tuple[Path, dict[str, str]]) -> None:
    folder, _ = toured
    notebook = nbformat.read(folder / "tour.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds == ["markdown", "code", "code", "code"]
    assert "docker-interpreter" in notebook.cells[0].source.replace("\\", "")
    assert any("image/png" in output.get("data", {}) for output in notebook.cells[-1].outputs)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("name", ["report.html", "tour.html"])
def test_a_browser_shows_the_pages(toured: tuple[Path, dict[str, str]], name: str, width: int) -> None:
    folder, _ = toured
    picture = shown(folder / name, width)
    assert picture.width == width
    # the bars of the plot, in matplotlib's blue: the picture in the page is drawn, and not only its frame
    blue = sum(count for count, colour in picture.getcolors(1 << 24) or () if colour == (0x1F, 0x77, 0xB4))
    assert blue > 500
    dark = sum(count for count, colour in picture.getcolors(1 << 24) or () if max(colour) < 0x70)
    assert dark > 1000, "there is text"


@pytest.mark.timeout(1200)
def test_nothing_is_left_of_the_session(toured: tuple[Path, dict[str, str]], environment: dict[str, str]) -> None:
    listed = subprocess.run(
        ["docker-interpreter", "sessions", "list", "--all", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert json.loads(listed.stdout) == []
