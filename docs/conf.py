"""Settings of the documentation site; `make docs` builds it into _docs."""

import configparser
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs"), str(ROOT / "tools")]
import pages  # noqa: E402

_settings = configparser.ConfigParser(delimiters=["="])
_settings.read(ROOT / "settings.ini", encoding="utf-8")
project = "lift"
author = _settings["DEFAULT"]["author"]
release = version = _settings["DEFAULT"]["version"]
copyright = _settings["DEFAULT"]["copyright"]  # noqa: A001

pages.write_pages(ROOT / "docs")
_tables = [str(path.with_suffix(".md").relative_to(ROOT)) for path in ROOT.glob("figures/**/*.csv")]
include_patterns = [
    "docs/**.md", "nbs/**.ipynb", "figures/*/README.md", "lift/weights/*/README.md",
    "CONTRIBUTING.md", "CHANGELOG.md", *_tables,
]  # fmt: skip
exclude_patterns = [".venv", "**/.ipynb_checkpoints", "_docs", "runs", "build", "dist"]
root_doc = "docs/index"
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "attrs_block", "attrs_inline"]
myst_heading_anchors = 4
default_role = "code"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"
nitpicky = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["lift.css"]
html_title = "lift"
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "navigation_depth": 2,
}


def read_source(app, docname: str, source: list[str]) -> None:
    """Prepare what is no page yet: a notebook, or a table."""
    if docname.startswith("nbs/"):
        source[0] = pages.notebook_page(source[0])
        if docname.startswith("nbs/paper/"):
            notebook = json.loads(source[0])
            note = pages.paper_note(docname.split("/")[-1])
            cell = {"cell_type": "markdown", "id": "where", "metadata": {}, "source": note}
            notebook["cells"].insert(1, cell)
            source[0] = json.dumps(notebook)
    elif docname.startswith("figures/") and not docname.endswith("README"):
        source[0] = pages.table_page(docname, source[0])


def read_included(app, path: Path, docname: str, content: list[str]) -> None:
    """The README's links begin at its own folder, the top of the sources."""
    content[0] = re.sub(r"\]\((?!https?:)", "](/", content[0])


def skip_member(app, what, name: str, obj, skip: bool, options) -> bool | None:
    """Leave out the methods that scikit-learn adds to each of its estimators."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


# commands that docutils' translation of TeX lacks
_TEX = ((r"\dots", r"\ldots"), (r"\big", ""), (r"\texttt", r"\text"), ("°", r"^{\circ}"))


def mathml(display: bool):
    """A visitor that writes an equation as MathML, which browsers draw without a script."""
    from docutils.nodes import SkipNode
    from docutils.utils.math.latex2mathml import tex2mathml

    def visit(self, node):
        formula = node.astext()
        for ours, known in _TEX:
            formula = formula.replace(ours, known)
        text = tex2mathml(formula, as_block=display)
        self.body.append(f'<div class="math">{text}</div>' if display else text)
        raise SkipNode

    return visit


def setup(app):
    """Join the hooks to Sphinx."""
    app.connect("source-read", read_source)
    app.connect("include-read", read_included)
    app.connect("autodoc-skip-member", skip_member)
    app.add_html_math_renderer("mathml", (mathml(False), None), (mathml(True), None))
    return {"parallel_read_safe": True}
