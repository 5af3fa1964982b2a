"""A notebook as a page of its own, rendered by nbconvert: it loads nothing, and nothing of the outputs runs in it.

Needs the extra ``notebook``.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import copy
import html
import logging
from typing import Any, Final

from nbformat import NotebookNode

from .errors import NotebookError

logger = logging.getLogger(__name__)

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
TEMPLATE: Final = f"""
{{%- extends 'lab/index.html.j2' -%}}
{{%- block html_head_js -%}}<meta http-equiv="Content-Security-Policy" content="{POLICY}">{{%- endblock -%}}
{{%- block html_head_js_mathjax -%}}{{%- endblock -%}}
{{%- block html_head_js_mermaidjs -%}}{{%- endblock -%}}
{{%- block jupyter_widgets -%}}{{%- endblock -%}}
"""
"""nbconvert's own look, without the scripts that it would load from elsewhere."""
NEEDED: Final = "A page needs nbconvert and nh3."
REMEDY: Final = "Install them: `pip install 'docker-interpreter[notebook]'`."


def notebook_page(notebook: NotebookNode, title: str) -> str:
    """The notebook as HTML.

    :raises NotebookError: what renders it is missing.
    """
    try:
        from jinja2 import pass_context
        from nbconvert import HTMLExporter

        from .harmless import harmless_html
    except ImportError as error:
        raise NotebookError(f"{NEEDED} {error}.", REMEDY) from None
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # it warns of pictures without a description

    class HarmlessExporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context: object, source: str) -> str:
            try:
                return harmless_html(super().markdown2html(context, source))
            except Exception as error:  # noqa: BLE001 - of a picture that is not attached, or whatever a text can break
                logger.info("a text is shown as it was written: %s", error)
                return f"<pre>{html.escape(source)}</pre>"

    def as_it_is(text: object) -> object:
        return text  # it comes from Pygments, or was cleaned before: nbconvert would take the colours from code

    exporter = HarmlessExporter(raw_template=TEMPLATE, exclude_anchor_links=True, filters={"clean_html": as_it_is})
    page, _ = exporter.from_notebook_node(_harmless(notebook), {"metadata": {"name": title}})
    return str(page)


def _harmless(notebook: NotebookNode) -> NotebookNode:
    """A copy of which nothing runs or loads anything."""
    from .harmless import harmless_data, well_formed

    shown = copy.deepcopy(notebook)
    shown.metadata = NotebookNode(language_info=NotebookNode(name="python"))
    # raw cells are HTML where they say so, and else are not shown
    shown.cells = [cell for cell in shown.cells if cell.cell_type != "raw"]
    for cell in shown.cells:
        cell.source = well_formed(cell.source)
        cell.metadata = NotebookNode()
        if "attachments" in cell:
            cell.attachments = _pictures(cell.attachments)
        for output in cell.get("outputs", []):
            _make_harmless(output, harmless_data, well_formed)
    return shown


def _pictures(attachments: object) -> NotebookNode:
    """The pictures among what is attached to a text; they are looked at again when the text is a page's."""
    from .harmless import PICTURES

    found = NotebookNode()
    for name, bundle in attachments.items() if isinstance(attachments, dict) else ():
        if isinstance(bundle, dict) and (kept := {mime: bundle[mime] for mime in PICTURES if mime in bundle}):
            found[name] = NotebookNode(kept)
    return found


def _make_harmless(output: NotebookNode, harmless_data: Any, well_formed: Any) -> None:
    if "data" in output:
        output.data = NotebookNode(harmless_data(output.data))
        output.metadata = NotebookNode()
    for name in ("text", "ename", "evalue"):
        if name in output:
            output[name] = well_formed(output[name])
    if "traceback" in output:
        output.traceback = [well_formed(line) for line in output.traceback]
