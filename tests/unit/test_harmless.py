"""What pages show of a container's output: nothing of it runs, loads, or leaves its place."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager import harmless
from session_manager.harmless import MOST_TAGS, harmless_data, harmless_html, picture_url, readable_part

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

HOSTILE = (
    "<script>alert(1)</script>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    '<img src=x onerror="alert(1)">',
    '<img src="https://evil.example/pixel.png">',
    '<img src="//evil.example/pixel.png">',
    '<img src="data:text/html;base64,PHNjcmlwdD4=">',
    '<a href="javascript:alert(1)">x</a>',
    '<a href=" java\nscript:alert(1)">x</a>',
    '<a href="data:text/html;base64,PHNjcmlwdD4=">x</a>',
    '<div style="background:url(https://evil.example/)">x</div>',
    "<div style=\"background-color:image-set('https://evil.example/')\">x</div>",
    '<div style="color:red;position:fixed;top:0;z-index:9">x</div>',
    '<div style="border: 1px u\\72l(https://evil.example/)">x</div>',
    '<iframe src="https://evil.example/"></iframe>',
    '<object data="https://evil.example/"></object>',
    '<link rel="stylesheet" href="https://evil.example/">',
    "<style>@import 'https://evil.example/';</style>",
    '<meta http-equiv="refresh" content="0;url=https://evil.example/">',
    '<base href="https://evil.example/">',
    '<form action="https://evil.example/"><input name=a><button>x</button></form>',
    '<svg onload="alert(1)"><a xlink:href="javascript:alert(1)">x</a></svg>',
    "<math><mtext><script>alert(1)</script></mtext></math>",
    '<div class="jp-Cell" id="cell-1">x</div>',
    "<video src='https://evil.example/' autoplay></video>",
    "<!--><img src=x onerror=alert(1)>-->",
    "</div></body></html><script>alert(1)</script>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
)
FORBIDDEN = ("<script", "onerror", "onload", "evil.example", "javascript:", "<iframe", "<form", "<svg", "position")
FORBIDDEN += ("<style", "<meta", "<base", "<link", "jp-Cell", "id=", "url(", "text/html;base64", "<!--", "</body")


@pytest.mark.parametrize("html", HOSTILE)
def test_hostile_html_runs_and_loads_nothing(html: str) -> None:
    cleaned = harmless_html(html).lower()
    assert not [word for word in FORBIDDEN if word.lower() in cleaned]


def test_tables_keep_their_structure_and_look() -> None:
    html = (
        '<table border="1" class="dataframe evil"><thead><tr><th colspan="2" style="text-align: right">a</th></tr>'
        '</thead><tbody><tr><td style="background-color: rgb(1, 2, 3)">1</td></tr></tbody></table>'
    )
    cleaned = harmless_html(html)
    assert '<table border="1" class="dataframe">' in cleaned
    assert 'colspan="2"' in cleaned
    assert "text-align:right" in cleaned.replace(" ", "")
    assert "rgb(1, 2, 3)" in cleaned


def test_links_of_the_web_stay_and_tell_nobody_where_they_were() -> None:
    cleaned = harmless_html('<a href="https://example.org/">x</a>')
    assert 'href="https://example.org/"' in cleaned
    assert "noreferrer" in cleaned


def test_pictures_in_html_stay() -> None:
    assert f'src="data:image/png;base64,{PNG}"' in harmless_html(f'<img src="data:image/png;base64,{PNG}">')


@given(st.text())
def test_any_text_can_be_cleaned(text: str) -> None:
    assert "<script" not in harmless_html(text + "\ud800<script>" + text)


def test_a_picture_is_what_its_type_says() -> None:
    assert picture_url("image/png", PNG) == f"data:image/png;base64,{PNG}"
    assert picture_url("image/png", f"{PNG[:8]}\n{PNG[8:]}\n") == f"data:image/png;base64,{PNG}"
    assert picture_url("image/jpeg", PNG) is None
    assert picture_url("text/html", PNG) is None
    assert picture_url("image/png", '"><script>') is None
    assert picture_url("image/png", 5) is None
    assert picture_url("image/svg+xml", "no picture") is None


def test_an_svg_is_shown_as_a_picture_in_which_nothing_runs() -> None:
    url = picture_url("image/svg+xml", SVG)
    assert url is not None
    assert base64.b64decode(url.partition(",")[2]).decode() == SVG


def test_of_a_bundle_one_type_is_shown() -> None:
    assert harmless_data({"text/html": "<b>1</b>", "text/plain": "1"}) == {"text/html": "<b>1</b>"}
    assert harmless_data({"image/png": PNG, "text/plain": "<Figure>"}) == {
        "text/html": f'<img src="data:image/png;base64,{PNG}" alt="">'
    }
    assert harmless_data({"text/latex": "$<script>$", "text/plain": "1"}) == {"text/plain": "$<script>$"}
    assert harmless_data({"application/javascript": "alert(1)", "text/plain": "<x>"}) == {"text/plain": "<x>"}


def test_html_that_a_script_was_to_fill_gives_way_to_what_can_be_seen() -> None:
    chart = '<div id="chart"></div><script>draw("chart")</script>'
    assert harmless_data({"text/html": chart, "image/png": PNG})["text/html"] == (
        f'<img src="data:image/png;base64,{PNG}" alt="">'
    )
    assert harmless_data({"text/html": chart, "text/plain": "Figure()"}) == {"text/plain": "Figure()"}
    assert harmless_data({"text/html": chart}) == {"text/plain": "[text/html, 52 bytes]"}


@pytest.mark.parametrize(
    "piece",
    [
        "<div>",
        "<table><b>",
        "<font color=red>",
        "<",
        "<div></b>",
        "<div><table></div></table>",
        '<div a="></div>">',
        '<div a=b"c d="></div>">',
        "<div><!--</div>-->",
        "<b/></b>" * 2 + "<i/>",
        "<div>" * 200 + "</div>" * 200,
        "<x></x>",
    ],
)
def test_html_that_would_take_the_square_of_its_length_is_cut(piece: str) -> None:
    html = piece * (50_000 // len(piece) + 20_000 // piece.count("<"))
    kept = readable_part(html)
    assert html.startswith(kept) and kept.count("<") == MOST_TAGS


def test_a_tag_without_end_is_cut() -> None:
    for odd in ("".join(f" a{number}=1" for number in range(10_000)), "/a" * 10_000, ' a="' + "><" * 10_000):
        assert len(readable_part(f"<b>shown</b><a{odd}>")) < 50_000
    assert readable_part(f"<b>shown</b><a {'b ' * 10_000}>") == "<b>shown</b>"


def test_what_is_cut_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmless, "MOST_TAGS", 10)
    assert harmless_html("<div>x" * 200).count("<div>") == 10


def test_a_large_table_is_shown_whole() -> None:
    row = '<tr class="x"><td style="color: red">1</td><td colspan=2 title=\'"\'>a &amp; b<br/></td></tr>\n'
    html = f'<div><style scoped>a > b {{}}</style><table border="1"><tbody>{row * 3000}</tbody></table></div>'
    assert html.count("<") > 5 * MOST_TAGS
    assert harmless_html(html).count("<tr>") == 3000
    picture = f'<img src="data:image/png;base64,{PNG * 1000}">'
    assert readable_part(picture) == picture
