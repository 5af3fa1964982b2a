"""The images that sessions run on: which one is current, and building it.

Everything here blocks, for minutes where something is built: call it in a thread.
"""

from .build import ensure_image, find_image, remove_outdated_images
from .context import DEFAULT_BASE, ImageKind, image_reference

__all__ = [
    "DEFAULT_BASE",
    "ImageKind",
    "ensure_image",
    "find_image",
    "image_reference",
    "remove_outdated_images",
]
