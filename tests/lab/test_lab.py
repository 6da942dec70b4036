"""The notebooks in JupyterLab, in a real browser: `make test` reads three of them, `make lab-test` all."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from reader import ROOT, SCREEN, Reader, jupyterlab

BROWSER = shutil.which("chromium")
FEW = ("00_geometry", "01_model", "tutorials/find_opposites")
NBS = ROOT / "nbs"
NOTEBOOKS = [
    str(path.relative_to(NBS).with_suffix(""))
    for path in sorted(NBS.rglob("*.ipynb"))
    if ".ipynb_checkpoints" not in path.parts
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """JupyterLab in a page of 1,400 pixels; it ends with this module, and so does its event loop."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="notebooks in a browser need `pip install playwright`"
    )
    if not BROWSER:
        pytest.skip("notebooks in a browser need Chromium (`apt-get install chromium`)")
    with (
        jupyterlab(tmp_path_factory.mktemp("lab")) as server,
        playwright.sync_playwright() as driver,
        driver.chromium.launch(executable_path=BROWSER) as browser,
        browser.new_page(viewport=SCREEN) as page,
    ):
        page.slow = playwright.TimeoutError
        yield Reader(page, server)


@pytest.mark.parametrize(
    "name",
    [
        name if name in FEW else pytest.param(name, marks=pytest.mark.all_notebooks)
        for name in NOTEBOOKS
    ],
)
def test_a_reader_finds_nothing_wrong(reader, name):
    profile = re.search(r'"profile = \\"(\w+)\\"', (NBS / f"{name}.ipynb").read_text())
    made = ROOT / "runs" / "smoke" / "notebooks" / f"{Path(name).name}.ipynb"
    if profile and (profile[1] != "smoke" or not made.is_file()):
        pytest.skip(f"{name} reads a run of {profile[1]} that is not there, or not in this size")
    try:
        assert not reader.run(f"{name}.ipynb")
    finally:
        reader.close()


FAULTS = {
    "wider than its cell": f"long = '{'x' * 150}'",
    "an output of": "print(*range(100), sep='\\n')",
    "none is shown": "save_figure = print\nsave_figure('nothing')",
    "not all of them appear": """from IPython.display import display
display({"application/vnd.jupyter.widget-view+json": {"model_id": "none"}}, raw=True)""",
    "its picture stays": """from ipywidgets import FloatSlider, Image, VBox
VBox([FloatSlider(), Image(value=b"GIF89a")])""",
    "error: ZeroDivisionError": "1 / 0",
}


def test_a_reader_complains_of_each_fault(reader):
    cells = [nbformat.v4.new_markdown_cell("# Faults")]
    picture = (
        "from PIL import Image\nImage.new('RGB', (64, 64))"  # drawn once, kept as PNG and JPEG
    )
    cells += [nbformat.v4.new_code_cell(source) for source in (*FAULTS.values(), picture)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, Path(reader.server["root_dir"]) / "faults.ipynb")
    try:
        faults = reader.run("faults.ipynb")
    finally:
        reader.close()
    assert len(faults) == len(FAULTS), faults
    for number, (fault, said) in enumerate(zip(FAULTS, faults, strict=True), start=1):
        assert said.startswith(f"cell {number} ") and fault in said
