"""A reader in a browser: JupyterLab as `make lab` starts it, one notebook, one cell after the other."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "runs" / "lab"
SCREEN = {"width": 1400, "height": 900}  # pixels of a small laptop
SLOWEST = 60  # seconds of a cell
FLAGS = "--no-browser --allow-root --port=0 --LabApp.expose_app_in_browser=True"
SETTINGS = {"fetchNews": "false", "checkForUpdates": False}  # nothing asks for the network

IDLE = """() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status
    === 'idle' && jupyterapp.shell.currentWidget.context.isReady"""
CELLS = "() => jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.toJSON())"
CHOOSE = """index => { const notebook = jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index; notebook.mode = 'command'; notebook.node.focus(); }"""
DONE = """index => { const model = jupyterapp.shell.currentWidget.content.widgets[index].model;
    return model.executionCount !== null && model.executionState === 'idle'; }"""
CHANGED = "([picture, before]) => picture.src !== before"
# what a reader sees of a cell; it is brought into view, and given time to draw
SEEN = """async index => {
    const notebook = jupyterapp.shell.currentWidget.content, cell = notebook.widgets[index];
    const view = selector => [...cell.node.querySelectorAll(selector)];
    cell.node.scrollIntoView();
    const outputs = cell.model.outputs?.toJSON() ?? [];
    const shown = (...kinds) => outputs.filter(output => kinds.some(kind => output.data?.[kind])).length;
    const expected = shown('application/vnd.jupyter.widget-view+json');
    const late = () => view('.jp-OutputArea .jupyter-widgets').length < expected;
    for (let wait = 0; wait < 100 && late(); wait++)
        await new Promise(done => setTimeout(done, 100));
    const images = view('.jp-OutputArea img');
    await Promise.all(images.map(image => image.decode().catch(() => null)));
    const code = view('.jp-InputArea .cm-scroller')[0], area = view('.jp-Cell-outputArea')[0];
    return {
        errors: outputs.filter(output => output.output_type === 'error')
            .map(output => `${output.ename}: ${output.evalue}`),
        pictures: shown('image/png', 'image/jpeg', 'image/svg+xml'),  // one output may hold two
        drawn: images.filter(image => image.naturalWidth > 10 && image.clientWidth > 10).length
            + view('.jp-RenderedSVG svg').length,
        undrawn: outputs.some(output => /^<?Figure\\b/.test([output.data?.['text/plain']].flat().join(''))
            && !output.data['image/png']),
        widgets: expected,
        late: late() || /(Error displaying widget|Loading widget)/.test(area?.innerText ?? ''),
        sideways: code ? code.scrollWidth - code.clientWidth : 0,
        height: area?.getBoundingClientRect().height ?? 0, screen: window.innerHeight,
        equations: view('mjx-merror, [data-mjx-error]').length,
    };
}"""


@contextmanager
def jupyterlab(folder: Path) -> Iterator[dict]:
    """What `make lab` starts, on a copy of the notebooks: its address and its token."""
    copy, runtime, settings = (folder / name for name in ("lift", "runtime", "settings"))
    hidden = shutil.ignore_patterns(".ipynb_checkpoints", "gallery", "notebooks", "figures")
    for name in ("nbs", "config", "runs/smoke"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=hidden)
    for name in ("Snakefile", "settings.ini"):
        shutil.copy(ROOT / name, copy)
    if (ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(ROOT.parent / "shared")
    notification = settings / "@jupyterlab" / "apputils-extension"
    notification.mkdir(parents=True)
    (notification / "notification.jupyterlab-settings").write_text(json.dumps(SETTINGS))
    own = {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "PYTHONPATH": str(ROOT),
    }
    # -o: what is installed stays as it is
    command = ["make", "-o", ".venv/installed", "lab", f"LAB={copy / 'nbs'} {FLAGS}"]
    with open(folder / "log.txt", "w") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(600):
            found = list(runtime.glob("jpserver-*.json"))
            if found or server.poll() is not None:
                break
            time.sleep(0.1)
        assert found, f"`make lab` did not start: {(folder / 'log.txt').read_text()[-2000:]}"
        time.sleep(0.2)  # the file is written before it is filled
        yield json.loads(found[0].read_text())
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


class Reader:
    """Opens notebooks of a JupyterLab in a page of the browser and runs them as one reads them."""

    def __init__(self, page, server: dict):
        self.page, self.server, self.stored = page, server, False

    def open(self, name: str) -> list[dict]:
        """The cells of a notebook whose kernel was found without being chosen."""
        token = self.server["token"]
        address = f"{self.server['url']}lab/tree/{name}?token={token}&reset"
        self.page.goto(address, timeout=SLOWEST * 1000)
        self.page.wait_for_function(IDLE, timeout=3 * SLOWEST * 1000)  # a busy machine
        return self.page.evaluate(CELLS)

    def run(self, name: str) -> list[str]:
        """What is wrong with a notebook, one line per fault; the first error ends it."""
        faults, cells = [], self.open(name)
        self.stored = any(cell.get("outputs") for cell in cells)
        for index, cell in enumerate(cells):
            found = self.run_cell(index, cell)
            faults += [f"cell {index} ({cell['id']}): {fault}" for fault in found]
            if found or cell["cell_type"] == "code":
                self.screenshot(f"{name}/{index:02d}")
            if any(fault.startswith("error") for fault in found):
                break
        self.contents()
        return faults

    def run_cell(self, index: int, cell: dict) -> list[str]:
        """Shift and Enter, and what a reader would complain of."""
        self.page.evaluate(CHOOSE, index)
        self.page.keyboard.press("Shift+Enter")
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip():
            try:
                self.page.wait_for_function(DONE, arg=index, timeout=SLOWEST * 1000)
            except self.page.slow:
                return [f"error: runs longer than {SLOWEST} s"]
        faults = complaints(cell, self.page.evaluate(SEEN, index), self.stored)
        return faults or self.move_slider(index)

    def move_slider(self, index: int) -> list[str]:
        """Move the slider of a cell, if it has one, to its middle: a picture must change."""
        cell = self.page.locator(".jp-Notebook-cell").nth(index)
        sliders, picture = cell.locator(".noUi-handle"), cell.locator(".jupyter-widgets img").first
        if not sliders.count():
            return []
        before = picture.get_attribute("src")
        for _ in range(10):
            sliders.first.press("ArrowRight")
        try:
            self.page.wait_for_function(
                CHANGED, arg=[picture.element_handle(), before], timeout=5000
            )
        except self.page.slow:
            return ["a slider moves, and its picture stays"]
        return []

    def contents(self) -> None:
        """The table of contents, which shows the headings; `TimeoutError` where it is empty."""
        self.page.evaluate("() => jupyterapp.commands.execute('toc:show-panel')")
        self.page.wait_for_selector(".jp-tocItem", timeout=SLOWEST * 1000)

    def screenshot(self, name: str) -> None:
        """The screen as it is, into a folder that git ignores."""
        path = SCREENSHOTS / f"{name.replace('.ipynb', '')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)

    def close(self) -> None:
        """End the kernel: it holds PyTorch, and there is one per notebook."""
        self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def complaints(cell: dict, seen: dict, stored: bool) -> list[str]:
    """What is wrong with a cell that ran, given what the browser shows of it.

    `stored`: the notebook came with outputs, and they say which cells show a figure.
    """
    source = "".join(cell["source"])
    before = [kind for output in cell.get("outputs", []) for kind in output.get("data", {})]
    if seen["errors"]:
        return [f"error: {error}" for error in seen["errors"]]
    faults = []
    if seen["drawn"] < seen["pictures"] or seen["undrawn"]:
        faults.append(f"{seen['pictures']} figures, {seen['drawn']} of them drawn")
    made = any("image/" in kind for kind in before) if stored else "save_figure(" in source
    if made and not seen["pictures"] + seen["widgets"]:
        faults.append("a figure is made, and none is shown")
    if seen["late"]:
        faults.append(f"{seen['widgets']} widgets, and not all of them appear")
    if seen["sideways"] > 1:
        faults.append(f"code is {seen['sideways']} pixels wider than its cell")
    if seen["height"] > seen["screen"]:
        faults.append(f"an output of {seen['height']:.0f} pixels on a screen of {seen['screen']}")
    if seen["equations"]:
        faults.append("an equation that MathJax does not understand")
    return faults
