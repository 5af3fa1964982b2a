"""The model of a cell's outputs: Jupyter messages go in, what a notebook would show comes out."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from .kept import KeptBundle, KeptOutputs
from .terminal import TerminalLine, moves_back
from .typed import (
    Bundle,
    Display,
    Error,
    Malformed,
    Output,
    Result,
    Stream,
    bundle_from_content,
    byte_length,
    clean_str,
    display_id_from_content,
    error_from_content,
    execution_count_from_content,
    split_bytes,
)

_MAX_LINE_CHARS = 16_384
# A chunk with carriage returns or backspaces is written a character at a time, about a megabyte a second: of
# one that is longer, which no progress bar sends, only the beginning and the end are.
_MAX_MOVING_CHARS = 1 << 20
_MAX_PLACES_PER_DISPLAY = 64


class DisplayRegistry:
    """Where the displays of a session's cells are, by display id, so that a later cell can update them.

    One registry is shared by the logs of a session. It keeps at most ``max_displays`` ids, forgetting the one
    not used for longest, and keeps no log alive: displays of a log that nobody holds any more are not found.
    """

    def __init__(self, max_displays: int = 10_000) -> None:
        self._max_displays = max_displays
        self._places: OrderedDict[str, list[_Place]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, display_id: str, log: OutputLog, kept: KeptBundle) -> None:
        """Notes that the display is (also) at this place. Called by :class:`OutputLog`."""
        places = [place for place in self._places.get(display_id, ()) if place.find() is not None]
        self._places[display_id] = [*places[1 - _MAX_PLACES_PER_DISPLAY :], _Place(log, kept)]
        self._places.move_to_end(display_id)
        if len(self._places) > self._max_displays:
            self._places.popitem(last=False)

    def find(self, display_id: str) -> Iterator[tuple[OutputLog, KeptBundle]]:
        """The places at which the display still is. Called by :class:`OutputLog`."""
        places = self._places.get(display_id)
        if places is None:
            return
        self._places.move_to_end(display_id)
        for place in places:
            found = place.find()
            if found is not None:
                yield found


class _Place:
    """A display in a log, without keeping either alive."""

    __slots__ = ("_kept", "_log")

    def __init__(self, log: OutputLog, kept: KeptBundle) -> None:
        self._log = weakref.ref(log)
        self._kept = weakref.ref(kept)

    def find(self) -> tuple[OutputLog, KeptBundle] | None:
        log, kept = self._log(), self._kept()
        return None if log is None or kept is None else (log, kept)


class OutputLog:
    """The outputs of one cell, kept as a notebook keeps them, within a budget.

    Streams are merged, carriage returns and backspaces act as on a terminal, displays can be updated, and
    ``clear_output`` clears. What is kept stays within ``max_bytes`` (UTF-8; JSON is estimated) and
    ``max_outputs``: the first outputs fill a half, the last ones go through a ring behind it, and a marker
    between the two says how much was left out. A bundle that is too large for the space that is left is
    replaced by a sentence that says so. The last error is always kept.

    Contents are untrusted. A malformed one changes nothing but the count in ``malformed``; none raises.
    """

    def __init__(self, max_bytes: int, *, max_outputs: int = 50_000, registry: DisplayRegistry | None = None) -> None:
        """``max_bytes`` is at least 4096 and ``max_outputs`` at least 8; raises ValueError otherwise."""
        if max_bytes < 4096 or max_outputs < 8:
            raise ValueError("an output log needs max_bytes >= 4096 and max_outputs >= 8")
        self.malformed = 0
        self._kept = KeptOutputs(max_bytes, max_outputs, head_bytes=max_bytes * 7 // 16, tail_bytes=max_bytes * 6 // 16)
        # Counted apart, since a flood may push the error out of the outputs while it stays in ``error``.
        self._error_bytes = max_bytes * 2 // 16
        # The last sixteenth is the line being written, at four bytes a character.
        self._line = TerminalLine(min(_MAX_LINE_CHARS, max_bytes // 64))
        self._registry = registry if registry is not None else DisplayRegistry()
        self._error: Error | None = None
        self._clear_pending = False

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs as they are now, displays updated."""
        return self._kept.outputs(self._line.text())

    @property
    def left_out_bytes(self) -> int:
        """Bytes that came and are neither kept nor were overwritten or cleared by the cell itself."""
        return self._kept.left_out_bytes

    @property
    def error(self) -> Error | None:
        """The last error, even where it is no longer among the outputs."""
        return self._error

    def apply(self, msg_type: str, content: Mapping[str, object]) -> Output | None:
        """Takes one iopub message; returns what a live view should show of it.

        For a stream that is the chunk as it came, for an update the display as it is now; None for a message
        that shows nothing: malformed, a clear, an update of a display that is not known, or no output at all.
        """
        try:
            if not isinstance(content, Mapping):
                raise Malformed("not an object")
            match msg_type:
                case "stream":
                    return self._apply_stream(content)
                case "display_data":
                    return self._apply_display(content)
                case "execute_result":
                    return self._apply_result(content)
                case "error":
                    return self._apply_error(content)
                case "update_display_data":
                    return self._apply_update(content)
                case "clear_output":
                    self._apply_clear(content)
        except Malformed:
            self.malformed += 1
        return None

    def _apply_stream(self, content: Mapping[str, object]) -> Stream | None:
        name, text = content.get("name"), clean_str(content.get("text"))
        if name == "stdout":
            chunk = Stream("stdout", text)
        elif name == "stderr":
            chunk = Stream("stderr", text)
        else:
            raise Malformed("no such stream")
        if not text:
            return None
        self._clear_if_pending()
        if self._kept.stream is None or self._kept.stream.name != chunk.name:
            self._finish_line()
            self._kept.start_stream(chunk.name)
        self._write(text)
        return chunk

    def _apply_display(self, content: Mapping[str, object]) -> Display:
        bundle = self._bundle(content)
        display = Display(bundle.data, bundle.metadata, display_id_from_content(content))
        kept = self._keep(display, bundle)
        if display.display_id is not None:
            self._registry.add(display.display_id, self, kept)
        return display

    def _apply_result(self, content: Mapping[str, object]) -> Result:
        bundle = self._bundle(content)
        result = Result(bundle.data, bundle.metadata, execution_count_from_content(content))
        self._keep(result, bundle)
        return result

    def _apply_error(self, content: Mapping[str, object]) -> Error:
        error = error_from_content(content, self._error_bytes)
        if error is None:
            raise Malformed("not an error")
        self._clear_if_pending()
        self._finish_line()
        self._error = error
        size = sum(byte_length(text) + 64 for text in (error.name, error.value, *error.traceback))
        self._kept.add_bundle(KeptBundle(error, size))
        return error

    def _apply_update(self, content: Mapping[str, object]) -> Display | None:
        display_id = display_id_from_content(content)
        if display_id is None:
            raise Malformed("an update without a display id")
        bundle = self._bundle(content)
        display = Display(bundle.data, bundle.metadata, display_id)
        found = False
        for log, kept in self._registry.find(display_id):
            log._update(kept, display, bundle)
            found = True
        return display if found else None

    def _apply_clear(self, content: Mapping[str, object]) -> None:
        wait = content.get("wait", False)
        if not isinstance(wait, bool):
            raise Malformed("wait is not a boolean")
        self._clear_pending = True
        if not wait:
            self._clear_if_pending()

    def _clear_if_pending(self) -> None:
        if self._clear_pending:
            self._clear_pending = False
            self._line.finish()
            self._kept.clear()

    def _finish_line(self) -> None:
        self._kept.add_text(self._line.finish())

    def _write(self, text: str) -> None:
        """Passes text through the terminal line: no more of it than can be kept, which bounds the work."""
        room, tail = self._kept.head_room, self._kept.tail_bytes
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if len(text) > _MAX_MOVING_CHARS and moves_back(text):
            room, tail = min(room, _MAX_MOVING_CHARS // 2), min(tail, _MAX_MOVING_CHARS // 2)
        if len(text) > room + tail:
            self._kept.add_text(self._line.feed(text[:room]))
            self._finish_line()
            self._kept.skip_text(text[room:-tail])
            text = text[-tail:]
        self._kept.add_text(self._line.feed(text))

    def _bundle(self, content: Mapping[str, object]) -> Bundle:
        bundle = bundle_from_content(content, self._kept.max_bytes)
        self.malformed += bool(bundle.rejected)
        return bundle

    def _keep(self, output: Display | Result, bundle: Bundle) -> KeptBundle:
        self._clear_if_pending()
        self._finish_line()
        size = bundle.size
        if size > self._kept.room_for_bundle():
            output, size = self._without_content(output, bundle)
            self._kept.left_out_bytes += bundle.size
        kept = KeptBundle(output, size)
        self._kept.add_bundle(kept)
        return kept

    def _update(self, kept: KeptBundle, display: Display, bundle: Bundle) -> None:
        if self._kept.replace(kept, display, bundle.size):
            return
        self._kept.left_out_bytes += bundle.size
        # Where not even the sentence fits, the display stays as it was.
        self._kept.replace(kept, *self._without_content(display, bundle))

    def _without_content(self, output: Display | Result, bundle: Bundle) -> tuple[Display | Result, int]:
        """The output with a sentence in place of its content, and its size; a short text/plain stays."""
        limit = self._kept.max_bytes
        others = ", ".join(mime for mime in bundle.data if mime != "text/plain") or "text/plain"
        mimes, _ = split_bytes(others, 256)
        more = "more than " if bundle.size_is_minimum else ""
        amount = f"{more}{bundle.size} bytes of {mimes}"
        sentence = f"[output of {amount} left out: no room within the limit of {limit} bytes for a cell]"
        plain = bundle.data.get("text/plain")
        if isinstance(plain, str) and byte_length(plain) <= min(4096, limit // 64):
            sentence = f"{plain}\n{sentence}"
        return replace(output, data={"text/plain": sentence}, metadata={}), byte_length(sentence)
