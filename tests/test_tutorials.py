"""The tutorials run from end to end on a few tiny clips, and on what a user brings."""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from lift.data.synthetic import ENCODING, FRAMES_PER_SECOND, render_clip
from lift.embedding import METHODS, read_embeddings
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


def test_embed_your_videos(tmp_path):
    execute("embed_your_videos", tmp_path, clips_per_label=2, size=64)
    table = read_embeddings(tmp_path / "embeddings.parquet")
    assert list(table.index) == [
        f"{label}/{label}0{n}.mp4" for label in ("emptying", "filling") for n in range(2)
    ]
    assert np.isfinite(table.to_numpy()).all()


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


def test_real_clips_ends_where_there_are_none(tmp_path):
    said = execute("real_clips", tmp_path, folder=str(tmp_path / "nowhere"))
    assert "needs the robot clips, and ends here" in said
    assert [file.name for file in tmp_path.iterdir()] == ["executed.ipynb"]


def test_real_clips(tmp_path, shared):
    listing = pd.read_csv(shared / "clips" / "clips.csv").groupby(["group", "label"]).head(1)
    few = tmp_path / "few"
    few.mkdir()
    listing.assign(file=[str(shared / "clips" / name) for name in listing["file"]]).to_csv(
        few / "clips.csv", index=False
    )
    execute("real_clips", tmp_path, folder=str(few))
    assert {"pair.png", "trajectories.png", "odd_code.png", "neighbours.png"} <= {
        file.name for file in tmp_path.iterdir()
    }
