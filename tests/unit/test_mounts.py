"""What is mounted below a workspace, as Linux lists it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_image.mounts import bound_below

LINE = "1190 1180 254:0 /srv/data {} rw,relatime master:1 - ext4 /dev/vda rw\n"


def test_mount_points_below_a_directory(tmp_path: Path) -> None:
    workspace = tmp_path / "mnt"
    places = ["", "/data", "/a/deep one", "data", "/new\nline", "/tab\tand\\040", "/\udcff"]
    listing = tmp_path / "mountinfo"
    with listing.open("w", errors="surrogateescape", newline="") as file:
        for place in places:
            escaped = f"{workspace}{place}".replace("\\", "\\134")
            for letter in " \t\n":
                escaped = escaped.replace(letter, f"\\{ord(letter):03o}")
            file.write(LINE.format(escaped))
        file.write(LINE.format("/"))
    expected = {"data", "a/deep one", "new\nline", "tab\tand\\040", "\udcff"}
    assert bound_below(str(workspace), str(listing)) == expected
    (tmp_path / "link").symlink_to(workspace)
    assert bound_below(f"{tmp_path}/link/", str(listing)) == expected


def test_below_the_root() -> None:
    assert "proc" in bound_below("/")
    assert "" not in bound_below("/")


@pytest.mark.parametrize("listing", ["", "\n", "1 2 3\n", "a b c d\n", "\0" * 100])
def test_a_listing_that_is_none(tmp_path: Path, listing: str) -> None:
    (tmp_path / "mountinfo").write_text(listing)
    assert bound_below(str(tmp_path), str(tmp_path / "mountinfo")) == frozenset()


def test_a_system_without_a_listing(tmp_path: Path) -> None:
    assert bound_below("/", str(tmp_path / "none")) == frozenset()
