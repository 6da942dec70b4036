"""The tutorials run from end to end on a few tiny clips, and on what a user brings."""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import torch

from lift.checkpoints import official_state_dict
from lift.data.clips import read_clips
from lift.data.synthetic import ENCODING, FRAMES_PER_SECOND, render_clip
from lift.embedding import METHODS, load_model, read_embeddings
from lift.model import LiFT, LiFTConfig
from lift.video import write_video

TUTORIALS = Path(__file__).parents[1] / "nbs" / "tutorials"


def execute(name: str, out: Path, **parameters: object) -> str:
    """Run a tutorial; the text that it printed."""
    source = str(TUTORIALS / f"{name}.ipynb")
    known = papermill.inspect_notebook(source)
    assert parameters.keys() <= known.keys(), (
        "papermill only warns of a parameter that does not exist"
    )
    done = out / "executed.ipynb"
    papermill.execute_notebook(
        source, str(done), {"out": str(out), **parameters}, cwd=TUTORIALS, progress_bar=False
    )
    outputs = [
        output
        for cell in nbformat.read(done, 4).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert not [output for output in outputs if output.get("name") == "stderr"], (
        "a warning is an error in our code"
    )
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Six clips of a lamp, on and off, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for sign in (0, 1):
        for n in range(3):
            frames = render_clip("lamp_on_off", sign, n, "test", size=64)
            write_video(folder / f"{sign}-{n}.mp4", frames, FRAMES_PER_SECOND, options=ENCODING)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_find_opposites(tmp_path):
    execute("find_opposites", tmp_path, clips_per_label=2, size=64)
    table = read_embeddings(tmp_path / "embeddings.parquet")
    assert list(table.index) == [
        f"{label}/{label}0{n}.mp4" for label in ("emptying", "filling") for n in range(2)
    ]
    assert np.isfinite(table.to_numpy()).all()
    assert (tmp_path / "opposites.png").is_file()


def test_compare_two_labels_of_rendered_clips(tmp_path):
    said = execute("compare_two_labels", tmp_path, clips_per_label=3, size=64)
    comparison = pd.read_csv(tmp_path / "comparison.csv").set_index("method")
    assert list(comparison.index) == list(METHODS) and (comparison["of"] == 6).all()
    assert comparison["accuracy"].between(comparison["low"], comparison["high"]).all()
    # nothing follows from six clips
    assert "cannot be distinguished" in said
    assert "means little" in said
    assert {"comparison_by_method.png", "clips.png"} <= {file.name for file in tmp_path.iterdir()}


def test_compare_two_labels_of_a_table_with_a_split(tmp_path, videos):
    rows = [
        (f"{sign}-{n}.mp4", ("off", "on")[sign], ("train", "train", "validation")[n])
        for sign in (0, 1)
        for n in range(3)
    ]
    table = pd.DataFrame([*rows, ("broken.mp4", "on", "train")], columns=["path", "label", "split"])
    # a column that is no business of ours
    table.assign(group="mine").to_csv(videos / "clips.csv", index=False)
    said = execute("compare_two_labels", tmp_path, clips=str(videos / "clips.csv"))
    assert (pd.read_csv(tmp_path / "comparison.csv")["of"] == 2).all()
    assert "6 clips done" in said and "1 failed" in said and "broken.mp4" in said


def test_train_on_features_of_ones_own(tmp_path):
    folder, random = tmp_path / "mine", np.random.default_rng(0)
    folder.mkdir()
    for n in range(5):
        np.save(folder / f"clip{n}.npy", random.standard_normal((6, 12)).cumsum(0))
    execute("train_on_features", tmp_path, folder=str(folder), epochs=2, latent_dim=8)
    for name in ("equivariant_code", "LiFT"):
        table = read_embeddings(tmp_path / f"{name}.parquet")
        assert list(table.index) == [f"clip{n}" for n in range(5)]
    assert load_model(tmp_path / "lift").code_dims == (8, 8)


def test_train_on_features_of_rendered_clips(tmp_path):
    execute("train_on_features", tmp_path, clips_per_label=2, epochs=1)
    assert len(read_embeddings(tmp_path / "LiFT.parquet")) == 2 * 2 * (2 + 1)


def test_the_authors_checkpoint(tmp_path, videos):
    model = LiFT(LiFTConfig(latent_dim=16, depth=1))
    torch.save({"state_dict": official_state_dict(model)}, tmp_path / "theirs.ckpt")
    given = {"checkpoint": str(tmp_path / "theirs.ckpt"), "weights": "random"}
    said = execute("authors_checkpoint", tmp_path, folder=str(videos), **given)
    assert "6 clips done" in said and "1 failed" in said and "mean nothing" not in said
    assert len(read_embeddings(tmp_path / "embeddings.parquet")) == 6
    theirs = load_model(tmp_path / "model").state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in model.state_dict().items())


def test_a_benchmark_from_annotations(tmp_path):
    said = execute("benchmark_from_annotations", tmp_path, clips_per_label=2, size=64)
    assert "0 clips have a verb of no pair: none" in said
    scores = pd.read_csv(tmp_path / "scores.csv").set_index("method")
    assert list(scores.index) == ["mean", "unit_slope", "lift"] and (scores["groups"] == 2).all()
    assert read_clips(tmp_path / "clips.csv")["group"].nunique() == 2


def test_a_benchmark_names_what_it_leaves_out(tmp_path, videos):
    rows = [(f"{sign}-{n}.mp4", ("off", "on")[sign], "lamp") for sign in (0, 1) for n in range(3)]
    table = pd.DataFrame([*rows, ("0-0.mp4", "waves", "lamp")], columns=["path", "verb", "noun"])
    for file in videos.glob("*-?.mp4"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    table.to_csv(tmp_path / "annotations.csv", index=False)
    pairs = pd.DataFrame({"forward": ["on"], "reverse": ["off"]})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    said = execute("benchmark_from_annotations", tmp_path, folder=str(tmp_path), methods="mean")
    assert "1 clips have a verb of no pair: waves" in said
    clips = read_clips(tmp_path / "clips.csv")
    assert len(clips) == 6 and clips.groupby("split").size().to_dict() == {"train": 4, "test": 2}


def test_is_my_model_blind(tmp_path, videos):
    good = tmp_path / "good"
    good.mkdir()
    for file in videos.glob("*-?.mp4"):
        (good / file.name).write_bytes(file.read_bytes())
    few = {"folder": str(good), "frames": "4", "bootstrap": 20, "embedder": "unit_slope"}
    said = execute("blind_to_time", tmp_path, **few)
    assert "mean: Blind." in said and "unit_slope: " in said
    assert (tmp_path / "unit_slope" / "README.md").is_file()
