"""The documentation's sources: nothing public is left out, no link leads nowhere, every number says what made it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "docs")]

import made_by  # noqa: E402
import made_with  # noqa: E402
import pages  # noqa: E402
from check import broken_links, fetched_parts, silent_tutorials  # noqa: E402

PUBLIC = {}
for path in sorted((ROOT / "lift").rglob("*.py")):
    found = re.search(r"^__all__ = (\[.*?\])", path.read_text(encoding="utf-8"), re.M | re.S)
    if found:
        PUBLIC[".".join(path.relative_to(ROOT).with_suffix("").parts)] = ast.literal_eval(found[1])


def test_every_module_has_a_page():
    assert set(pages.public_names()) == set(PUBLIC)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference_and_leads_to_its_explanation(module):
    page = pages.api_page(module)
    notebook = pages.notebooks()[module]
    anchors = {
        pages.slug(heading)
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "markdown"
        for heading in re.findall(r"^#+ (.+)$", "".join(cell["source"]), re.M)
    }
    for name in PUBLIC[module]:
        entry = rf"(autofunction|autoclass):: {module}\.{name}(\(.*\))?$|py:data:: {name}$|`{name} <lift"
        assert re.search(entry, page, re.M), name
    explained = re.findall(rf"/nbs/{notebook.name}#([^)]*)\)", page)
    assert set(explained) <= anchors
    assert len(explained) == len(re.findall(r"^\.\. (?:auto|py:data)", page, re.M))


def sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split()]


def test_links_between_the_sources_lead_somewhere():
    made = {ROOT / "docs" / "provenance.md", ROOT / "docs" / "api" / "index.md"}
    made |= {ROOT / "docs" / "api" / "commands.md"}
    broken = []
    for page in sources():
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", page.read_text("utf-8")):
            base = ROOT if link.startswith("/") else page.parent
            target = (base / link.lstrip("/")).resolve()
            if not target.exists() and target not in made:
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken


def test_every_committed_figure_says_what_made_it():
    for page in ROOT.glob("figures/*/README.md"):
        sections = page.read_text(encoding="utf-8").split("\n### ")[1:]
        for section in sections:
            name = section.split("\n")[0]
            line = section.split("Made by ")[1]
            if (page.parent / name / "provenance.json").exists():
                made = json.loads((page.parent / name / "provenance.json").read_text("utf-8"))
                for fact in (made["commit"][:7], f"PROFILE={made['profile']} ONLY={name}`"):
                    assert fact in line, name


def test_a_notebook_loses_its_directives_and_its_widgets_and_nothing_else():
    cells = [
        {"cell_type": "code", "source": ["#| default_exp model"]},
        {"cell_type": "code", "source": ["#| export\n", "x = 1  # | y\n", "# why"]},
        {"cell_type": "code", "source": ["#| hide\n", "secret()"]},
        {"cell_type": "markdown", "source": ["#| no directive"]},
    ]
    notebook = {"cells": cells, "metadata": {"kernelspec": {}, "widgets": {}}}
    page = json.loads(pages.notebook_page(json.dumps(notebook)))
    assert page["metadata"] == {"kernelspec": {}}
    texts = ["".join(cell["source"]) for cell in page["cells"]]
    assert texts == ["x = 1  # | y\n# why", "#| no directive"]


def test_each_table_of_speed_names_the_command_that_makes_it():
    names = {path.stem for path in (ROOT / "figures").glob("*.csv")}
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"run"}
    assert {"benchmark", "benchmark_codecs"} <= names
    for name in names:
        own = [script for script in scripts if name == f"benchmark_{script}"]
        made = f"python benchmarks/{own[0]}.py" if own else "make bench"
        assert f"`{made}` makes it again" in pages.table_page(f"figures/{name}", "")
        source = (ROOT / "benchmarks" / f"{(own or ['run'])[0]}.py").read_text(encoding="utf-8")
        assert f'"{name}"' in source, "the script writes that table"


def test_a_link_to_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there">b</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#here"></a><a href="https://x.org/y"></a>')
    assert broken_links(tmp_path) == ["a.html: b.html#there leads nowhere"]
    (tmp_path / "b.html").write_text('<p id="there"><img src="no.png">')
    assert broken_links(tmp_path) == ["b.html: no.png leads nowhere"]


def test_a_script_of_another_site_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<script src="https://x.org/s.js"></script><img src="b.png">')
    assert fetched_parts(tmp_path) == ["a.html: fetches https://x.org/s.js"]


def test_a_tutorial_without_outputs_is_found(tmp_path):
    (folder := tmp_path / "nbs" / "tutorials").mkdir(parents=True)
    (folder / "shown.html").write_text('<div class="cell_output docutils">')
    (folder / "bare.html").write_text('<div class="cell_input docutils">')
    assert silent_tutorials(tmp_path) == ["bare has no output: make docs executes it"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one table that its present code made."""
    files = {f"lift/{step}.py": "" for step in made_by.RENDERED}
    files["lift/a.py"] = '"""A."""\ndef f(x: int) -> int:\n    return x + 1\n'
    files["config/p.yaml"] = "seed: 0\n"
    source = {"cells": [{"cell_type": "code", "source": ["from lift.a import f\n", "f(1)"]}]}
    files["nbs/paper/t.ipynb"] = json.dumps(source)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    folder = Path("figures/p/t")
    folder.mkdir(parents=True)
    made = {"commit": commit.stdout.strip(), "profile": "p", "seed": 0}
    (folder / "provenance.json").write_text(json.dumps(made))
    yield folder
    forget()


def forget():
    made_by.essence.cache_clear()
    made_with.imports.cache_clear()


def tell(folder):
    """The line of a folder, from its files as they are now."""
    return made_by.tell(folder, made_by.changed(folder))


def test_a_table_of_other_code_is_told_with_what_differs(checkout):
    forget()
    assert "does the same" in tell(checkout)
    assert made_by.committed() == [checkout]
    Path("lift/a.py").write_text('"""Another text."""\ndef f(x):\n    # why\n    return x + 1\n')
    forget()
    assert "does the same" in tell(checkout), "docstrings, types and comments do nothing"
    Path("lift/a.py").write_text("def f(x):\n    return x + 2\n")
    Path("config/p.yaml").write_text("seed: 1\n")
    forget()
    assert "2 of 7 sources differ" in tell(checkout)
    assert made_by.changed(checkout)[1] == ["p", "a"]


def test_an_unknown_commit_is_called_so(checkout):
    forget()
    made = json.loads((checkout / "provenance.json").read_text())
    (checkout / "provenance.json").write_text(json.dumps(made | {"commit": "unknown"}))
    assert "does not have" in tell(checkout)


def test_what_is_old_fails_only_where_it_is_asked_to(checkout):
    Path("lift/a.py").write_text("def f(x):\n    return x + 2\n")
    command = [sys.executable, ROOT / "tools" / "made_by.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (told.returncode, told.stdout.count("1 of 7")) == (0, 1), told.stderr
    assert (
        subprocess.run([*command, "--fail"], env=environment, capture_output=True).returncode == 1
    )


def test_the_citation_is_that_of_the_readme_and_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    assert f"\nversion = {citation['version']}\n" in settings
    (paper,) = citation["references"]
    assert f"{{{paper['title']}}}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)


def test_pages_that_the_readme_links_are_on_the_site():
    settings = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "CONTRIBUTING.md")]
    linked = {name for text in texts for name in re.findall(r"\]\((\w+\.md)\)", text)}
    assert "SECURITY.md" in linked
    assert not [name for name in linked if f'"{name}"' not in settings]
