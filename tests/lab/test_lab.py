"""The notebooks in JupyterLab, in a real browser: `make test` reads three of them, `make lab-test` all."""

import re
import shutil

import pytest
from reader import ROOT, SCREEN, Reader, jupyterlab

BROWSER = shutil.which("chromium")
FEW = ("00_geometry", "01_model", "tutorials/embed_your_videos")
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
    if profile and (profile[1] != "smoke" or not (ROOT / "runs" / "smoke" / "model").is_dir()):
        pytest.skip(
            f"{name} reads a run of the profile {profile[1]}: make reproduce PROFILE={profile[1]}"
        )
    try:
        assert not reader.run(f"{name}.ipynb")
    finally:
        reader.close()
