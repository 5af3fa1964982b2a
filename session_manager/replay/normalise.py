"""Takes out of an output's text what differs from one run to the next and says nothing about the result.

Each kind of noise becomes a word in angle brackets (``<address>``), so that two runs give the same text and a
person who reads a diff sees what stood there. What is *not* taken out: any other number, checksums, seeds, data.
Dates and times are not noise by themselves; :mod:`.sameness` decides on them with both texts in hand.

Every expression here is linear in the text's length: repetitions are possessive or bounded, and each begins with
something that is looked at only once.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..outputs import strip_escapes

_AMOUNT = r"\d{1,15}+(?:\.\d{0,15}+)?+(?:e[-+]?\d{1,3}+)?+"
_UNIT = r"(?:ns|[µμu]s|msec(?:onds?)?|ms|sec(?:ond)?s?|s|min(?:ute)?s?|m|hours?|h)(?![\w/])"
_SPAN = rf"{_AMOUNT} {{0,3}}+{_UNIT}(?: {{0,2}}+(?:and )?{_AMOUNT} {{0,3}}+{_UNIT}){{0,3}}+"
_CLOCK = r"(?:\d{1,3}+ days?,? )?+\d{1,3}+:\d\d(?::\d\d)?+(?:\.\d{1,9}+)?+"
_WORK = (
    r"execution|running|run|training|train|fitting|fit|elapsed|processing|computation|compute|inference"
    r"|prediction|query|load|loading|wall|wall[- ]clock|cpu|response|build|compile|compilation"
)

_REPLACEMENTS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    # --- %%time, %timeit, %%prun
    (r"(?m)^(CPU times|Wall time|Compiler|Parser) {0,3}+:[^\n]*+", r"\1: <duration>"),
    (
        rf"(?m)^ {{0,4}}+{_AMOUNT} ?[nµμum]?s(?:ec)? ±[^\n]{{1,200}}? per loop \([^()\n]{{1,200}}+\)",
        "<duration> per loop",
    ),
    (r"(?m)^[\d,]{1,20}+ loops?, best of \d{1,9}+:[^\n]*+", "<duration> per loop"),
    (r"(?m)^The slowest run took [^\n]*+\n?(?:This could mean that an intermediate result[^\n]*+\n?)?+", ""),
    (r"\bfunction calls? (\([^()\n]{1,60}+\) )?+in [\d.]{1,20}+ seconds?", "function calls in <duration>"),
    # --- progress bars: what is done stays, how fast does not
    (r"\[\d{1,4}+:\d\d(?::\d\d)?+<[^\]\n]{1,60}+\]", "[<rate>]"),
    (r"\[\d{1,4}+:\d\d(?::\d\d)?+, [^\]\n]{1,60}+(?:/s|/it)[^\]\n]{0,40}+\]", "[<rate>]"),
    (
        r"(?<=[━╸╺=>.\]-]) {1,3}+(?:- )?(?:\d{1,6}+(?:ms|µs|us|s|m|h)?+ ){0,3}+\d{1,9}+(?:ms|µs|us|s)/(?:step|epoch)",
        " <rate>",
    ),
    (
        r"(?<![\w.])\d{1,12}+(?:\.\d{1,9}+)? ?"
        r"(?:it|[kKMGT]?i?B|MB|batch(?:es)?|steps?|rows?|samples?|ex(?:amples)?)/s\b",
        "<rate>",
    ),
    (r"(?<![\w.])\d{1,9}+(?:\.\d{1,9}+)? ?(?:s|ms|sec|µs|us)/(?:it|step|batch|epoch|sample)\b", "<rate>"),
    (r"\beta:? \d{1,3}+:\d\d(?::\d\d)?+", "eta <duration>"),
    # --- "took 0.3 s", "Execution time: 1.2 seconds", "5 passed in 0.12s", "(0.12s)" at a line's end
    (
        rf"(?i)\b(took|taken|elapsed|run ?time|(?:{_WORK})[ _-]time|time taken|time elapsed)"
        rf"( {{0,3}}+[:=]? {{0,20}}+(?:about |approximately |only |~ ?)?)(?:{_SPAN}|{_CLOCK})",
        r"\1\2<duration>",
    ),
    (
        rf"(?i)\b(took|elapsed|(?:{_WORK})[ _-]time|time taken|time elapsed)"
        rf"( {{0,3}}+(?:\((?:s|sec|seconds|ms)\)|in (?:s|ms|seconds))? {{0,3}}+[:=] {{0,20}}+){_AMOUNT}(?![\w%])",
        r"\1\2<duration>",
    ),
    (
        rf"(?i)\b(\w{{2,24}}+(?<=ed)|done|ran|run|built|read|written|wrote)((?: [\w./-]{{1,40}}+){{0,4}} (?:in|after) )"
        rf"(?:{_SPAN}|{_CLOCK})",
        r"\1\2<duration>",
    ),
    (rf"(?m)([(\[]){_SPAN}([)\]])(?= *$)", r"\1<duration>\2"),
    # --- addresses and object ids
    (r"\bat (?:remote )?0x[0-9a-fA-F]{3,16}+(?![0-9a-zA-Z])", "at <address>"),
    (r"(?<![0-9a-zA-Z])0x(?:0000)?(?:7[e-fE-F]|5[5-6]|[fF]{4}|[aA]{4})[0-9a-fA-F]{8,10}+(?![0-9a-zA-Z])", "<address>"),
    (r"(?i)\b(id|ident|address)( ?[:=(] ?)\d{9,20}+\b", r"\1\2<address>"),
    (r"(?<![\w.])\d{14,15}+(?![\w.]|[eE])", lambda found: "<address>" if _like_address(int(found[0])) else found[0]),
    # --- processes
    (r"(?i)\b(p?pid|process id)( ?[:=#(]? ?)\d{1,10}+\b", r"\1\2<pid>"),
    # --- names made by chance
    (r"(?<=[/\\])ipykernel_\d{1,10}+[/\\]\d{1,20}+\.py", "ipykernel/<cell>.py"),
    (r"<ipython-input-\d{1,9}+-[0-9a-f]{12,40}+>", "<cell>"),
    (r"(?:(?<=/)|(?<=\\)|(?<=['\"]))tmp[a-z0-9_]{8}(?![a-zA-Z0-9_])", "<temporary name>"),
    (r"\bpytest-of-[\w-]{1,40}+/pytest-\d{1,9}+", "<temporary name>"),
    (r"/var/folders/\w\w/\w{20,60}+/T", "/tmp"),  # noqa: S108
    (
        r"(?<![0-9a-fA-F-])[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[14679][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}"
        r"-[0-9a-fA-F]{12}(?![0-9a-fA-F-])",
        "<uuid>",
    ),
    # a random (version 4) UUID without its dashes, as widgets and charts name themselves
    (r"(?<![0-9a-zA-Z])[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}(?![0-9a-zA-Z])", "<uuid>"),
)

_MARKUP_REPLACEMENTS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\bT_[0-9a-f]{5}(?=[_ \"'#{,]|$)", "T_<id>"),  # pandas' Styler
    (r"\b(sk-(?:container|estimator)-id-)\d{1,9}+", r"\1<id>"),  # scikit-learn
    (r"(?<=[\"'#])[mp][0-9a-f]{10}(?=[\"')])", "<id>"),  # matplotlib's SVG: markers and clip paths
    (r"<dc:date>[^<]{0,60}+</dc:date>", "<dc:date/>"),
    (r"(?<=[\"'#])(altair-viz-|chart-|plot-|fig_el)[0-9a-f]{6,40}+(?=[\"'])", r"\1<id>"),
)

_TEXT = tuple((re.compile(pattern), replacement) for pattern, replacement in _REPLACEMENTS)
_MARKUP = tuple((re.compile(pattern), replacement) for pattern, replacement in _MARKUP_REPLACEMENTS)

# Where Linux puts libraries and the heap, as an id() of CPython prints them: x86-64 and ARM.
_ADDRESSES = (
    (0x7E0000000000, 0x7FFFFFFFFFFF),
    (0x550000000000, 0x56FFFFFFFFFF),
    (0xFFFF00000000, 0xFFFFFFFFFFFF),
    (0xAAAA00000000, 0xAAFFFFFFFFFF),
)


def _like_address(number: int) -> bool:
    return any(low <= number <= high for low, high in _ADDRESSES)


def normalise(text: str, *, markup: bool = False) -> str:
    """The text as it is compared: without escape sequences, without what is different in every run.

    Of a line that was written over (a progress bar) the last state counts. ``markup`` also takes out the ids that
    HTML and SVG elements are given by chance.
    """
    text = strip_escapes(last_state(text))
    for expression, replacement in _TEXT:
        text = expression.sub(replacement, text)
    if markup:
        for expression, replacement in _MARKUP:
            text = expression.sub(replacement, text)
    return text


def last_state(text: str) -> str:
    """The text as it stands after its carriage returns have done their work."""
    if "\r" not in text:
        return text
    return "\n".join(map(_written_over, text.replace("\r\n", "\n").split("\n")))


def _written_over(line: str) -> str:
    # from the last one back: of an earlier one only what the later did not cover is left
    shown = ""
    for part in reversed(line.split("\r")):
        if len(part) > len(shown):
            shown += part[len(shown) :]
    return shown
