"""What a cell puts out: typed outputs, the log that keeps them like a notebook, and the text a model reads.

Nothing here does I/O, and nothing trusts what it is given: it all came out of a container.
"""

from .escapes import strip_escapes, terminal_safe
from .log import DisplayRegistry, OutputLog
from .reading import text_for_model
from .typed import Display, Error, Output, Result, Stream, error_from_content, to_nbformat

__all__ = [
    "Display",
    "DisplayRegistry",
    "Error",
    "Output",
    "OutputLog",
    "Result",
    "Stream",
    "error_from_content",
    "strip_escapes",
    "terminal_safe",
    "text_for_model",
    "to_nbformat",
]
