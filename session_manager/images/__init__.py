"""The images that sessions run on, and their proxy: which one is current, and building it.

Everything here blocks, for minutes where something is built: call it in a thread.
"""

from .build import ensure_image, find_image, remove_outdated_images
from .context import DEFAULT_BASE, SESSION_IMAGES, ImageKind, image_reference
from .custom import ensure_custom_image

__all__ = [
    "DEFAULT_BASE",
    "SESSION_IMAGES",
    "ImageKind",
    "ensure_custom_image",
    "ensure_image",
    "find_image",
    "image_reference",
    "remove_outdated_images",
]
