"""What the site makes of the sources: reference, notebooks without directives, tables."""

import ast
import json
import re
import sys
from contextlib import chdir
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from made_by import changed, committed  # noqa: E402

_FIELD = re.compile(r"^    (\w+): (.+?)(?: = (.+?))?(?:  # (.*))?$", re.M)


def parse(module: str) -> tuple[str, ast.Module]:
    """Source and syntax tree of `lift.NAME`."""
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    return source, ast.parse(source)


@cache
def notebooks() -> dict[str, Path]:
    """The notebook of each module, in the order of reading."""
    found = {}
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        module = re.search(r"#\| default_exp ([\w.]+)", path.read_text(encoding="utf-8"))
        found |= {f"lift.{module[1]}": path} if module else {}
    return found


@cache
def public_names() -> dict[str, list[str]]:
    """The names in `__all__` of each module, in the order of reading."""
    lists = {
        module: [node.value for node in parse(module)[1].body if assigned(node) == ["__all__"]]
        for module in notebooks()
    }
    return {module: ast.literal_eval(value) for module, (value,) in lists.items()}


def assigned(node: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    parts = [part for target in targets if target for part in ast.walk(target)]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def headings(module: str) -> dict[str, str]:
    """The heading above the cell that exports each name."""
    heading, found = "", {}
    for cell in json.loads(notebooks()[module].read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = ([heading] + re.findall(r"^#+ (.+)$", text, re.M))[-1]
        elif text.startswith("#| export"):
            names = [name for node in ast.parse(text).body for name in assigned(node)]
            found |= dict.fromkeys(names, heading)
    return found


def slug(heading: str) -> str:
    """The anchor that MyST gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace(" ", "-"))


def _entry(module: str, name: str) -> list[str]:
    """Signature, docstring, fields and source of one name, as a directive of Sphinx."""
    source, tree = parse(module)
    node = next((node for node in tree.body if name in assigned(node)), None)
    if node is None:
        home = next(other for other, names in public_names().items() if name in names)
        return [f":py:obj:`{name} <{home}.{name}>` comes from ``{home}``."]
    if isinstance(node, ast.FunctionDef):
        # the options of a command have a page of their own
        names = ", ".join(argument.arg for argument in node.args.args)
        return [f".. autofunction:: {module}.{name}" + f"({names})" * (module == "lift.cli")]
    if isinstance(node, ast.ClassDef):
        body = "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno]).split(
            "\n    def "
        )[0]
        rows = [
            f"   * ``{field}: {kind}``"
            + (f" = ``{default}``" if default else "")
            + (f" -- {note}" if note else "")
            for field, kind, default, note in _FIELD.findall(body)
        ]
        return [f".. autoclass:: {module}.{name}", "   :members:", "", *rows]
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    shown = lines if len(lines) <= 16 else [*lines[:15], "    ..."]
    code = ["   .. code-block:: python", "", *(f"      {line}" for line in shown)]
    return [f".. py:data:: {name}", f"   :module: {module}", "", *code]


def api_page(module: str) -> str:
    """The reference page of a module: each public name, and where it is explained."""
    notebook, above = notebooks()[module].stem, headings(module)
    promise = ast.get_docstring(parse(module)[1])
    blocks = [f"# {module}", promise + ".", f"Notebook: [{notebook}](/nbs/{notebook}.ipynb)."]
    if module == "lift.cli":
        blocks.append("What each command takes: [commands](commands.md).")
    for name in public_names()[module]:
        blocks += ["\n".join(["```{eval-rst}", *_entry(module, name), "```"])]
        if heading := above.get(name):
            link = f"/nbs/{notebook}.ipynb#{slug(heading)}"
            blocks.append(f"{{.explained}}\nExplained in [{heading}]({link}).")
    return "\n\n".join(blocks) + "\n"


def command_page() -> str:
    """The help of every command, as Typer writes it."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    import lift.cli

    command = get_command(lift.cli.app)
    context = command.make_context("lift", [], resilient_parsing=True)
    return get_docs_for_click(obj=command, ctx=context, name="lift", title="Commands")


def provenance_page() -> str:
    """Every folder of committed figures: what made it, and how much of that code has changed."""
    rows = ["| figures | commit | sources that differ now |", "|---|---|---|"]
    with chdir(ROOT):
        known = {folder: changed(folder) for folder in committed()}
    for folder, found in known.items():
        commit, differ = "not in this clone", "not known"
        if found:
            commit, names, count = found
            commit = f"`{commit[:7]}`" + " with changes" * commit.endswith("-dirty")
            differ = f"{len(names)} of {count}" + f": {', '.join(names)}" * (0 < len(names) < 13)
        link = (
            f"[{folder.parent.name}: {folder.name}](/{folder.parent}/README.md#{slug(folder.name)})"
        )
        rows.append(f"| {link} | {commit} | {differ} |")
    return f"# Provenance\n\n{_PROVENANCE}\n\n" + "\n".join(rows) + "\n"


_PROVENANCE = """\
Each row is a notebook of the paper with its figures and tables. The link leads to them, and to the
profile, the seed, the versions and the command that makes them again. The sources are the
notebook, its profile, and all modules that the notebook or an earlier step imports. One that
differs does something else now than at that commit; a docstring, a comment or a type does not
count. It informs: many changes cannot move a number. `python tools/made_by.py` prints the same."""


def reference_index() -> str:
    """The page above all modules."""
    total = sum(map(len, public_names().values()))
    intro = (
        f"The [commands](commands.md), and every public name: {total} in order of the notebooks."
    )
    promises = {module: ast.get_docstring(parse(module)[1]) for module in public_names()}
    rows = "\n".join(f"- [{module}]({module}.md): {text}." for module, text in promises.items())
    toc = "\n".join(["```{toctree}", ":hidden:", "", "commands", *promises, "```"])
    return f"# Reference\n\n{intro}\n\n{rows}\n\n{toc}\n"


def write_pages(folder: Path) -> None:
    """Write what is made of the sources; a page that did not change keeps its time."""
    pages = {f"api/{module}": api_page(module) for module in public_names()}
    pages |= {"api/index": reference_index(), "api/commands": command_page()}
    pages |= {"provenance": provenance_page()}
    (folder / "api").mkdir(exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def notebook_page(text: str) -> str:
    """A notebook without nbdev's directives, and without the cells that they hide."""
    notebook = json.loads(text)
    kept = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        bare = re.sub(r"^#\| ?\w.*\n?", "", source, flags=re.M).strip("\n")
        if cell["cell_type"] == "code" and (not bare or "#| hide" in source):
            continue
        kept.append(cell | {"source": bare if cell["cell_type"] == "code" else source})
    # the state of widgets, which no page shows, would fetch scripts from another site
    metadata = {key: value for key, value in notebook["metadata"].items() if key != "widgets"}
    return json.dumps(notebook | {"cells": kept, "metadata": metadata})


def paper_note(notebook: str) -> str:
    """Where the figures of a paper notebook are, for it is kept without outputs."""
    places = sorted(path.parent.name for path in (ROOT / "figures").glob(f"*/{notebook}"))
    links = ", ".join(f"[{place}](/figures/{place}/README.md#{slug(notebook)})" for place in places)
    return (
        f"This notebook is kept without outputs. Its figures and tables: {links or 'none is kept'}."
    )


def measured_by(name: str) -> str:
    """The command that makes a table of speed: its own script, or `make bench`."""
    script = f"benchmarks/{name.removeprefix('benchmark_')}.py"
    return f"python {script}" if (ROOT / script).exists() else "make bench"


def table_page(docname: str, text: str) -> str:
    """The page of one table: a title, the table, its files, and the line that says what made it."""
    folder, name = docname.split("/")[-2:]
    where = f"[The run that made it](../README.md#{slug(folder)})"
    if folder == "figures":
        where = f"`{measured_by(name)}` makes it again"
    links = f"{where} · [csv]({name}.csv) · [tex]({name}.tex)"
    return f"---\norphan: true\n---\n# {folder}: {name}\n\n{links}\n\n{text}\n"
