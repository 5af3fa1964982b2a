"""Terminal escape sequences are taken out whole, in linear time, whatever they look like."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager.outputs import strip_escapes, terminal_safe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[38;2;1;2;3mrgb\x1b[m", "rgb"),
        ("\x9b31mred\x9bm", "red"),
        ("\x1b[?25lhidden\x1b[?25h", "hidden"),
        ("\x1b[2 qcursor", "cursor"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x9d0;title\x9cb", "ab"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1b]0;never ended\nnext line", "a\nnext line"),
        ("a\x1bPq#0;2\n#1~~\x1b\\b", "ab"),
        ("a\x1bPnever ended\nnext line", "a\nnext line"),
        ("a\x1b_Gf=100;AAAA\x1b\\b", "ab"),
        ("a\x1b(Bb\x1b=c\x1bMd", "abcd"),
        ("end\x1b", "end"),
        ("end\x1b[", "end"),
        ("end\x1b[31", "end"),
        ("end\x1b]0;x", "end"),
        ("\x1b\x1b[31mred", "red"),
        ("a\x00\x07\x0b\x7f\x85b", "ab"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("naïve ← 日本 🙂", "naïve ← 日本 🙂"),
    ],
)
def test_sequences_are_taken_out(text: str, expected: str) -> None:
    assert strip_escapes(text) == expected


@given(st.text(alphabet="ab;0[]()mKPX^_\\\n\t\r\b\x07\x1b\x90\x9b\x9c\x9d\x9f é", max_size=60))
def test_no_control_character_is_left(text: str) -> None:
    left = strip_escapes(text)
    assert all(character in "\n\t" or character.isprintable() for character in left)
    assert strip_escapes(left) == left
    for_terminal = terminal_safe(text)
    assert strip_escapes(for_terminal.replace("\r", "").replace("\b", "")).isprintable() or "\n" in text or "\t" in text
    assert "\x1b]" not in for_terminal
    assert "\x1bP" not in for_terminal


def test_a_person_s_terminal_gets_colours_and_moves_in_the_line_but_nothing_else() -> None:
    assert terminal_safe("\x1b[31mred\x1b[0m 1%\r2%\b3\n") == "\x1b[31mred\x1b[0m 1%\r2%\b3\n"
    assert terminal_safe("\x1b]0;title\x07\x1b[2J\x1b[5;5Hx\x1b]52;c;AAAA\x1b\\y\x9b5n\x07") == "xy"
    assert terminal_safe("\x1b") + terminal_safe("]52;c;AAAA\x07") == "]52;c;AAAA"
    link = "\x1b]8;id=1;https://evil.example\x1b\\\x1b[4mhttps://example.org\x1b[0m\x1b]8;;\x1b\\"
    assert terminal_safe(link) == "\x1b[4mhttps://example.org\x1b[0m"
    assert terminal_safe(link.replace("\x1b\\", "\x07")) == "\x1b[4mhttps://example.org\x1b[0m"
    assert terminal_safe("\x9d8;;https://evil.example\x9chere\x9d8;;\x9c") == "here"
    for cut in range(len(link)):
        assert "\x1b]" not in terminal_safe(link[:cut]) + terminal_safe(link[cut:])


@pytest.mark.parametrize(
    "pattern",
    [
        "\x1b",
        "\x1b[",
        "\x1b[1",
        "\x1b]",
        "\x1bP",
        "\x90",
        "\x9d",
        "\x1b]x\x1b",
        "\x1b[;",
        "\x9f\x1b",
        "\x90a",
    ],
)
def test_time_is_linear_in_the_length(pattern: str) -> None:
    def seconds(size: int) -> float:
        text = (pattern * size)[:size]
        best = 9e9
        for _ in range(3):
            begin = time.process_time()
            strip_escapes(text)
            best = min(best, time.process_time() - begin)
        return best

    # Sixteen times the text: quadratic would be 256 times the time.
    assert seconds(320_000) < 80 * max(seconds(20_000), 1e-4)
