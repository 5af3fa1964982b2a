"""Images out of a cell's outputs: into files, and onto terminals that can show them.

Their bytes are never interpreted here beyond the first few.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
}
MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8"}
MOST_FILES = 500
MOST_BYTES = 256 << 20
MOST_INLINE_BYTES = 8 << 20
KITTY_CHUNK = 4096

Protocol = Literal["kitty", "iterm2"]


def images_in(data: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    """The images of a mime bundle: mime type and bytes. What is no valid base64 is left out."""
    for mime in SUFFIXES:
        value = data.get(mime)
        if not isinstance(value, str):
            continue
        if mime == "image/svg+xml":
            yield mime, value.encode()
            continue
        try:
            yield mime, base64.b64decode(re.sub(r"\s+", "", value), validate=True)
        except (binascii.Error, ValueError):
            continue


class PictureFiles:
    """Writes images into a folder as ``figure-1.png`` and so on, behind those that are there, never over one.

    At most 500 files and 256 MiB in all: code that draws without end must not fill the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._files = 0
        self._bytes = 0
        self._of_display: dict[tuple[str, str], Path] = {}

    def save(self, mime: str, content: bytes, display_id: str | None = None) -> Path | None:
        """Write one image; a later state of the same display replaces the earlier. None: over the limit.

        :raises OSError: it can't be written.
        """
        self._bytes += len(content)
        earlier = self._of_display.get((display_id, mime)) if display_id is not None else None
        if self._bytes > MOST_BYTES or (earlier is None and self._files >= MOST_FILES):
            return None
        if earlier is not None:
            earlier.write_bytes(content)
            return earlier
        path = self._create(SUFFIXES[mime], content)
        self._files += 1
        if display_id is not None:
            self._of_display[display_id, mime] = path
        return path

    def _create(self, suffix: str, content: bytes) -> Path:
        if not self._number:
            self._folder.mkdir(parents=True, exist_ok=True)
            taken = (re.match(r"figure-([0-9]{1,9})\.", path.name) for path in self._folder.iterdir())
            self._number = max((int(found[1]) for found in taken if found), default=0)
        while True:
            self._number += 1
            path = self._folder / f"figure-{self._number}{suffix}"
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                continue
            return path


def inline_protocol(environment: Mapping[str, str]) -> Protocol | None:
    """How the terminal that the environment describes takes images; None where it takes none."""
    if environment.get("TMUX") or environment.get("STY"):
        return None  # tmux and screen pass neither protocol on
    terminal, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or terminal in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return None


def inline_sequence(protocol: Protocol, mime: str, content: bytes) -> str | None:
    """The escape sequences that draw the image at the cursor; None where that protocol has no way for it.

    Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol/ and https://iterm2.com/documentation-images.html
    """
    if len(content) > MOST_INLINE_BYTES or not content.startswith(MAGIC.get(mime, b"\0not an image")):
        return None
    encoded = base64.b64encode(content).decode()
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(content)}:{encoded}\x07\n"
    if mime != "image/png":
        return None
    chunks = [encoded[start : start + KITTY_CHUNK] for start in range(0, len(encoded), KITTY_CHUNK)]
    first = "a=T,f=100,q=2,"  # transmit and show, PNG, and no answer, which a shell would take for typing
    parts = [
        f"\x1b_G{first if number == 0 else ''}m={int(number < len(chunks) - 1)};{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    ]
    return "".join(parts) + "\n"
