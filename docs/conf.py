"""Settings of the documentation site; `make docs` builds it into _docs."""

import configparser
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
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
    "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *_tables,
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
highlight_language = "none"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["lift.css"]
html_title = "lift"
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
_alone = ("index", "start", "limits", "cite")  # pages without pages below them
html_sidebars = {f"docs/{name}": [] for name in _alone}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "navigation_depth": 2,
    "show_toc_level": 2,
}


def read_source(app, docname: str, source: list[str]) -> None:
    """Prepare what is no page yet: a notebook, or a table."""
    if docname.startswith("nbs/"):
        executed = ROOT / "_docs" / f"{docname.removeprefix('nbs/')}.ipynb"
        if executed.exists():  # a tutorial, which is committed without outputs
            source[0] = executed.read_text(encoding="utf-8")
            app.env.note_dependency(str(executed), docname=docname)
        source[0] = pages.notebook_page(source[0])
        if docname.startswith("nbs/paper/"):
            notebook = json.loads(source[0])
            note = pages.paper_note(docname.split("/")[-1])
            cell = {"cell_type": "markdown", "id": "where", "metadata": {}, "source": note}
            notebook["cells"].insert(1, cell)
            source[0] = json.dumps(notebook)
    elif docname.endswith("README") and docname.startswith("figures/"):
        profile = docname.split("/")[1]
        source[0] = source[0].replace("# Figures and tables", f"# Figures and tables: {profile}", 1)
    elif docname.startswith("figures/"):
        source[0] = pages.table_page(docname, source[0])


def read_included(app, path: Path, docname: str, content: list[str]) -> None:
    """The README's links begin at its own folder, the top of the sources."""
    content[0] = re.sub(r"\]\((?!https?:)", "](/", content[0])


def skip_member(app, what, name: str, obj, skip: bool, options) -> bool | None:
    """Leave out scikit-learn's methods of every estimator, and fields, which are listed already."""
    of_others = re.fullmatch(r"set_\w+_request", name) or type(obj).__name__ == "_tuplegetter"
    return True if of_others else None


def drop_foreign_sources(app, env) -> None:
    """Sphinx lists modules whose source it has not found, such as builtins, and links nowhere."""
    env._viewcode_modules = {name: code for name, code in env._viewcode_modules.items() if code}


def mathml(display: str):
    """A visitor that writes an equation as MathML, which browsers draw without a script."""
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    def visit(self, node):
        text = convert(node.astext(), display=display)
        self.body.append(f'<div class="math">{text}</div>' if display == "block" else text)
        raise SkipNode

    return visit


def setup(app):
    """Join the hooks to Sphinx."""
    app.connect("source-read", read_source)
    app.connect("include-read", read_included)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("env-check-consistency", drop_foreign_sources)
    app.add_html_math_renderer("mathml", (mathml("inline"), None), (mathml("block"), None))
    return {"parallel_read_safe": True}
