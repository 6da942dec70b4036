"""What `pip install` gives: a wheel that is whole, and inference without the packages of training and reproduction."""

import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

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
    assert 'pip install "lift[plot]"' in result.stderr.replace("\\", "")


def test_import_is_quick_to_begin_with(installed, tmp_path):
    result = run(installed, "import lift, sys; print('torch' in sys.modules)", tmp_path)
    assert result.stdout.strip() == "False", "public names are imported when they are asked for"


def test_the_wheel_is_below_10_mb(wheel):
    assert wheel.stat().st_size < 10_000_000


def packages(requirements: list[Requirement], extra: str = "") -> set[str]:
    """The names that these requirements bring with one extra, or with none."""
    chosen = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {r.name.lower().replace("_", "-") for r in chosen}


def test_a_plain_install_asks_for_no_notebook_training_or_nbdev(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    heavy = {"lightning", "papermill", "snakemake", "jupyterlab", "matplotlib", "transformers"}
    companions = {"nbdev", "execnb", "fastcore", "ghapi", "fastgit"}
    plain = packages(requirements)
    assert "torch" in plain and not plain & (heavy | companions | {"ipykernel", "tensorboard"})
    of_extras = {
        extra: packages(requirements, extra) for extra in metadata.get_all("Provides-Extra")
    }
    assert [extra for extra, names in of_extras.items() if names & companions] == ["dev"]
    assert of_extras["dev"] >= companions
    assert of_extras["plot"] - plain == {"matplotlib", "seaborn", "scikit-image", "tabulate"}


def settings() -> dict[str, str]:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def test_the_conda_recipe_asks_for_what_pip_asks_for():
    text = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    (version,) = re.findall(r'{% set version = "(.+)" %}', text)
    recipe = yaml.safe_load(re.sub(r"(?m)^{%.*%}$", "", text))
    assert version == settings()["version"]
    python, *asked = [*recipe["requirements"]["run"], *recipe["extra"]["pip"]]
    assert python == f"python >={settings()['min_python']}"
    asked = [re.sub("^pytorch ", "torch", line) for line in asked]
    assert [line.replace(" ", "") for line in asked] == settings()["requirements"].split()


def test_the_image_copies_enough_to_build_the_same_wheel(wheel, tmp_path):
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert sent[0] == "*" and {f"!{name}" for name in copied} <= set(sent)
    for name in copied:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tmp_path / "src" / name, ignore=ignore)
        else:
            (tmp_path / "src").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "src")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*command, tmp_path / "src"], check=True, capture_output=True)
    (made,) = tmp_path.glob("*.whl")
    names = [set(zipfile.ZipFile(path).namelist()) for path in (made, wheel)]
    assert names[0] == names[1]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The files that a release changes, with an entry of the changelog to date."""
    for name in ("settings.ini", "lift/__init__.py", "CITATION.cff", "conda/meta.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = "# Changelog\n\n## 7.8.9 (unreleased)\n\n- New.\n"
    (tmp_path / "CHANGELOG.md").write_text(text)
    return tmp_path


def release(folder: Path, version: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "release.py", version]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_one_command_writes_the_version_everywhere_and_dates_the_changes(copy):
    done = release(copy, "7.8.9")
    assert done.returncode == 0, done.stderr
    for name, line in (
        ("settings.ini", "version = 7.8.9"),
        ("lift/__init__.py", '__version__ = "7.8.9"'),
        ("CITATION.cff", "version: 7.8.9"),
        ("conda/meta.yaml", '{% set version = "7.8.9" %}'),
    ):
        before = (ROOT / name).read_text(encoding="utf-8").splitlines()
        after = (copy / name).read_text(encoding="utf-8").splitlines()
        changed = [new for old, new in zip(before, after, strict=True) if old != new]
        assert changed == [line]
    assert re.search(
        r"^## 7\.8\.9 \(20\d\d-\d\d-\d\d\)$", (copy / "CHANGELOG.md").read_text(), re.M
    )


@pytest.mark.parametrize("version, words", [("7.9", "is no version"), ("7.9.0", "CHANGELOG.md")])
def test_a_release_that_cannot_be_whole_writes_nothing(copy, version, words):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    done = release(copy, version)
    assert done.returncode == 1 and words in done.stderr
    assert before == {path: path.read_bytes() for path in before}
