"""Whether two images show the same, as an eye would say; and both of them beside what differs, for people."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..errors import NotebookError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
MOST_PIXELS = 50_000_000
TILE = 8
"""Side, in pixels, of the parts that are compared: what is smaller than a few pixels is how a font was drawn."""
SCALE = 0.02
"""Images whose sides differ by less are compared in one size."""
GAP = 12


def difference(recorded: bytes, replayed: bytes) -> float:
    """From 0 (none) to 1: how different the most different part is. 1 where the sizes are not the same.

    :raises NotebookError: Pillow is missing.
    :raises ValueError: one is no image that can be read.
    """
    one, other = read(recorded), read(replayed)
    from PIL import ImageChops, ImageFilter  # read() has said what to do where it is missing

    if one.size != other.size:
        if any(abs(a - b) > SCALE * max(a, b) for a, b in zip(one.size, other.size, strict=True)):
            return 1.0
        # what lies between pixels falls into other ones
        one, other = (each.filter(ImageFilter.GaussianBlur(1)) for each in (one, other.resize(one.size)))
    bands = ImageChops.difference(one, other).reduce(TILE).getextrema()
    return max(float(high) for _, high in bands) / 255  # type: ignore[misc]


def side_by_side(recorded: bytes, replayed: bytes) -> bytes:
    """A PNG: what was recorded, what was replayed, and where they differ.

    :raises ValueError: as :func:`difference`.
    """
    from PIL import Image, ImageChops

    one, other = read(recorded), read(replayed)
    apart = (
        ImageChops.difference(one, other.resize(one.size)).convert("L").point(lambda value: 255 - min(255, 4 * value))
    )
    shown = [one, other, apart.convert("RGB")]
    sheet = Image.new("RGB", (sum(each.width for each in shown) + 2 * GAP, max(each.height for each in shown)), "#888")
    left = 0
    for each in shown:
        sheet.paste(each, (left, 0))
        left += each.width + GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def read(content: bytes) -> Image:
    """The picture, on white where it is transparent. What it says of itself is believed within bounds."""
    try:
        from PIL import Image
    except ImportError:
        raise NotebookError(
            "Comparing images needs Pillow.", "Install it: `pip install 'docker-interpreter[notebook]'`."
        ) from None
    try:
        found = Image.open(io.BytesIO(content), formats=FORMATS)
        if found.width * found.height > MOST_PIXELS:
            raise ValueError(f"an image of {found.width} by {found.height} pixels")
        picture = found.convert("RGBA")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no image that can be read ({type(error).__name__})") from error
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")
