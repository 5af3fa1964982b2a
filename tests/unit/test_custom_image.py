"""Requirements files that are baked into images, without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_manager.errors import ImageBuildFailed
from session_manager.images.custom import MOST_BYTES, read_requirements


def test_a_file_goes_in_as_it_is(tmp_path: Path) -> None:
    text = "# a comment\n\n--index-url https://pypi.example.org/simple\nhumanize==4.9.0  # small\nnumpy>=2\n"
    file = tmp_path / "requirements.txt"
    file.write_text(text)
    assert read_requirements(file) == text.encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names no packages"),
        (b"# nothing\n\n", "names no packages"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a\n" * MOST_BYTES, "larger than 1 MiB"),
        *(
            (line.encode(), f"names another file or folder, which the build does not have: {line}")
            for line in ("-r a.txt", "-ra.txt", "-c a.txt", "--requirement a.txt", "-e .", "--constraint=a.txt", ".")
        ),
        *((line.encode(), "names another file") for line in ("./a.whl", "../a", "/a", "file:///a", "  -e git+x")),
    ],
)
def test_what_can_not_be_built_from_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_bytes(content)
    with pytest.raises(ImageBuildFailed, match=words):
        read_requirements(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(ImageBuildFailed, match=f"The requirements file {path} can't be read"):
            read_requirements(path)
