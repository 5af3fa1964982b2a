"""The pictures that a cell showed, as a model gets them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..execution import Execution
from ..outputs import Display, Result
from ..outputs.mime import image_size

MIME_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
"""That endpoints take. An SVG is not one of them."""
MOST_CHARACTERS = 6_000_000
"""Of one picture's base64."""
NO_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


def data_urls(execution: Execution) -> Iterator[str]:
    """Each picture as a data URL; of one that comes in several forms the first that a model can take.

    What has not the size of a picture in its header is left out, and WebP, whose header is not read here, is not.
    """
    for output in execution.outputs:
        if not isinstance(output, Display | Result):
            continue
        for mime in MIME_TYPES:
            value = output.data.get(mime)
            if not isinstance(value, str) or not value or len(value) > MOST_CHARACTERS:
                continue
            encoded = re.sub(r"\s", "", value)
            if NO_BASE64.search(encoded) is None and (mime == "image/webp" or image_size(encoded) is not None):
                yield f"data:{mime};base64,{encoded}"
                break
