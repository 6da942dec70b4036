"""What `pip install` gives: a wheel that is whole, and inference without the packages of training and reproduction."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_FOR_INFERENCE = [
    "lightning", "tensorboard", "papermill", "snakemake", "jupyterlab", "nbdev", "fastcore", "IPython", "ipykernel",
    "matplotlib", "seaborn", "statsmodels", "skimage", "transformers", "ray", "pytest",
]  # fmt: skip
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NOT_FOR_INFERENCE!r}:
            raise ModuleNotFoundError(f"{{name}} is not part of a plain install", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    assert len(list(out.glob("*.tar.gz"))) == 1, "build makes the sdist and, from it, the wheel"
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with nothing but the unpacked wheel."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, code: str, cwd: Path) -> subprocess.CompletedProcess:
    script = f"import sys; sys.path.insert(0, {str(installed)!r})\n{BLOCKER}\n{code}"
    return subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True)


def test_wheel_holds_the_package_its_model_and_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for expected in (
        "lift/model.py",
        "lift/data/synthetic.py",
        "lift/reported.json",
        "lift/weights/default/model.safetensors",
    ):
        assert expected in names
    assert not [name for name in names if name.startswith(("tests/", "nbs/", "runs/"))]
    assert (
        zipfile.ZipFile(wheel).getinfo("lift/weights/default/model.safetensors").file_size
        <= 5_000_000
    )


def test_inference_needs_nothing_but_a_plain_install(installed, tmp_path):
    code = """
import lift, torch, sys
from lift import LiFT, LiFTConfig, LiFTOutput, LiFTEmbedder, FeatureStore, curvature, straightness, CurvatureLoss, LiFTLoss
assert str(lift.__file__).startswith(sys.path[0]), lift.__file__
import lift.cli, lift.backbones, lift.extraction, lift.embedding, lift.probes, lift.video, lift.data.clips
import numpy as np
from lift.video import write_video
write_video("clip.mp4", np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8))
array = LiFTEmbedder().fit_transform(["clip.mp4"])
print(array.shape)
"""
    result = run(installed, code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("(1, ")


def test_what_needs_an_extra_names_it(installed, tmp_path):
    result = run(installed, "import lift.training", tmp_path)
    assert 'pip install "lift[train]"' in result.stderr.replace("\\", "")
    result = run(installed, "import lift.figures", tmp_path)
    assert 'pip install "lift[repro]"' in result.stderr.replace("\\", "")


def test_import_is_quick_to_begin_with(installed, tmp_path):
    result = run(installed, "import lift, sys; print('torch' in sys.modules)", tmp_path)
    assert result.stdout.strip() == "False", "public names are imported when they are asked for"
