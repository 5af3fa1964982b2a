"""What of a cell's output reaches files, pipes and terminals."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from session_manager.cli.live import SafeStream
from session_manager.cli.pictures import PictureFiles, images_in, inline_protocol, inline_sequence

from .conftest import CommandLine

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SHOWS_IMAGE = f"from IPython.display import Image, display\ndisplay(Image({PNG!r}))"
HOSTILE = r"print('\x1b]0;title\x07\x1b[31mred\x1b[0m \x1b[2Jend')"


def test_image_becomes_a_file_that_is_named(cli: CommandLine, tmp_path: Path) -> None:
    run = cli("run", "--image-dir", "pictures", "-c", SHOWS_IMAGE)
    assert run.stdout == "[image/png 1x1, 70 bytes] pictures/figure-1.png\n"
    assert (tmp_path / "pictures" / "figure-1.png").read_bytes() == PNG
    again = json.loads(cli("run", "--image-dir", "pictures", "--json", "-c", SHOWS_IMAGE).stdout)
    [output] = again["outputs"]
    assert output["files"] == {"image/png": "pictures/figure-2.png"}
    assert base64.b64encode(PNG).decode() not in json.dumps(again)


def test_no_images_no_folder(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("run", "-c", "1").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_pipe_gets_no_escape_sequences(cli: CommandLine) -> None:
    assert cli("run", "-c", HOSTILE).stdout == "red end\n"


def test_terminal_gets_colours_and_nothing_else(cli: CommandLine) -> None:
    code, written = cli.on_a_terminal("run", "-c", HOSTILE)
    assert code == 0
    assert b"\x1b[31mred\x1b[0m end" in written
    assert b"title" not in written
    assert b"\x1b[2J" not in written


def test_no_color(cli: CommandLine) -> None:
    code, written = cli.on_a_terminal("run", "-c", HOSTILE + "\n1 / 0", NO_COLOR="1")
    assert code == 1
    assert b"red end" in written
    assert b"ZeroDivisionError" in written
    assert b"\x1b[" not in written


@pytest.mark.parametrize(
    ("environment", "beginning"),
    [
        ({"KITTY_WINDOW_ID": "1"}, b"\x1b_Ga=T,f=100,q=2,m=0;"),
        ({"TERM_PROGRAM": "iTerm.app"}, b"\x1b]1337;File=inline=1;size=70:"),
    ],
)
def test_image_is_drawn_where_the_terminal_can(cli: CommandLine, environment: dict[str, str], beginning: bytes) -> None:
    code, written = cli.on_a_terminal("run", "-c", SHOWS_IMAGE, **environment)
    assert code == 0
    assert beginning + base64.b64encode(PNG) in written


def test_image_is_not_drawn_in_a_pipe(cli: CommandLine) -> None:
    assert "\x1b" not in cli("run", "-c", SHOWS_IMAGE, KITTY_WINDOW_ID="1").stdout


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm2"),
    ],
)
def test_terminals_that_draw(environment: dict[str, str], protocol: str | None) -> None:
    assert inline_protocol(environment) == protocol


def test_large_image_is_sent_to_kitty_in_pieces() -> None:
    content = PNG + os.urandom(10_000)
    sequence = inline_sequence("kitty", "image/png", content)
    assert sequence is not None
    pieces = [piece.split(";")[1] for piece in sequence.strip().split("\x1b\\") if piece]
    assert len(pieces) == 4
    assert all(len(piece) <= 4096 for piece in pieces)
    assert base64.b64decode("".join(pieces)) == content
    assert sequence.count("m=1") == 3


def test_only_images_are_drawn() -> None:
    for protocol in ("kitty", "iterm2"):
        assert inline_sequence(protocol, "image/png", b"\x1b]0;title\x07") is None
        assert inline_sequence(protocol, "image/svg+xml", b"<svg/>") is None
    assert inline_sequence("kitty", "image/jpeg", b"\xff\xd8\xff\xe0") is None


def test_images_of_a_bundle() -> None:
    data = {
        "text/plain": "a plot",
        "image/png": base64.encodebytes(PNG).decode(),
        "image/jpeg": "not base64!",
        "image/svg+xml": "<svg/>",
        "image/gif": 5,
    }
    assert list(images_in(data)) == [("image/png", PNG), ("image/svg+xml", b"<svg/>")]


def test_files_are_never_overwritten_except_by_the_same_display(tmp_path: Path) -> None:
    (tmp_path / "figure-7.svg").touch()
    pictures = PictureFiles(tmp_path)
    assert pictures.save("image/png", b"1") == tmp_path / "figure-8.png"
    (tmp_path / "figure-9.png").symlink_to(tmp_path / "elsewhere")
    assert pictures.save("image/png", b"2", "d") == tmp_path / "figure-10.png"
    assert pictures.save("image/png", b"3", "d") == tmp_path / "figure-10.png"
    assert (tmp_path / "figure-10.png").read_bytes() == b"3"
    assert not (tmp_path / "elsewhere").exists()


def test_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_manager.cli.pictures.MOST_FILES", 3)
    monkeypatch.setattr("session_manager.cli.pictures.MOST_BYTES", 100)
    pictures = PictureFiles(tmp_path)
    saved = [pictures.save("image/png", b"x", f"display-{number}") for number in range(5)]
    assert [path is not None for path in saved] == [True, True, True, False, False]
    assert pictures.save("image/png", b"y", "display-0") is not None
    assert pictures.save("image/png", b"y" * 100, "display-0") is None


def test_sequence_that_is_cut_by_the_end_of_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        stream = SafeStream(file, {})
        for piece in ("a\x1b[3", "1mb\x1b]0;ti", "tle\x07c\n"):
            stream.write(piece)
    assert path.read_text() == "abc\n"
