"""DROID's web clips: the rule on the words, the folds, the faults, and the real counts where the clips are there."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lift.data.droid import (
    INDEX,
    Action,
    chiral_clips,
    count_groups,
    count_reasons,
    describe,
    find_root,
    read_action,
    read_index,
)
from lift.data.status import DatasetError
from lift.probes import ProbeError, probe_folds

PAGE = (
    "<!DOCTYPE html>\n<html>\n<body>\n<script>\n    const videos = [\n{lines}"
    "\n    ];\n    const state = JSON.parse(text);\n</script>\n</body>\n</html>\n"
)
WANTED = [
    "Open the drawer",
    "Close the drawer",
    "Put the pen in the cup",
    "Take the pen out of the cup",
] + ["Wipe the table", "Open it, then close it"]


def line(text: str, source: str) -> str:
    """One line of data as the page has it."""
    info = f"{text}<br><br>Industrial office / Other / Open"
    poster = source.replace(".mp4", ".jpg")
    entry = {
        "info": info, "object_id": "object-10", "poster": poster, "scene_id": "scene-1",
        "src": source, "task_id": "task-6",
    }  # fmt: skip
    return (
        "      JSON.parse('"
        + json.dumps(entry).replace("<", "\\u003c").replace(">", "\\u003e").replace("'", "\\u0027")
        + "'),"
    )


def make_droid(root: Path, wanted: list[str] = WANTED, labs: int = 10, copies: int = 2) -> Path:
    """DROID in the true layout: `copies` of each instruction in each lab; the videos are empty files."""
    lines = []
    for lab in range(labs):
        for number, text in enumerate(wanted * copies):
            source = f"videos/{lab:08x}/2023-07-01/Sat_Jul__1_10:{number:02d}:00_2023/20103212.mp4"
            (root / "visualizer" / source).parent.mkdir(parents=True)
            (root / "visualizer" / source).touch()
            lines.append(line(text, source))
    (root / INDEX).write_text(PAGE.replace("{lines}", "\n".join(lines)))
    return root


@pytest.mark.parametrize(
    ("instruction", "action"),
    [
        ("Open the left door of the second upper cabinet from the left", Action("open", 1, "door")),
        (
            "Close the bottom drawer of the file cabinet on  the right side",
            Action("open", 0, "drawer"),
        ),
        ("Close the open drawer.", Action("open", 0, "drawer")),
        ("Push the open drawer closed", Action("open", 0, "drawer")),
        ("Open the tap", Action("open", 1, "other")),
        ("Unfold the tea towel", Action("fold", 0, "")),
        ("Fold the towel once from right to left", Action("fold", 1, "")),
        ("Switch off the second socket on the extension adapter", Action("turn on", 0, "")),
        ("Put the pink lid on the blue bowl", Action("cover", 1, "")),
        ("Take the lid off the pot on the right and put it on the stove", Action("cover", 0, "")),
        ("Put the pen in the cup[", Action("put in", 1, "cup")),
        ("Take the bottle from table and put it in the bowl", Action("put in", 1, "bowl")),
        (
            "Remove all the objects from the plastic bag and put them on the table",
            Action("put in", 0, "box"),
        ),
        ("Pick the marker in the cup and put it on the table", Action("put in", 0, "cup")),
        ("Move the block on the far right to the left", Action("move right", 0, "")),
        ("Move the white mug from right to left.", Action("move right", 0, "")),
        ("Pick up the black sachet and slightly move it to the left.", Action("move right", 0, "")),
        ("Move the white mug forwards", Action("move forward", 1, "")),
        ("", "no action is said"),
        ("Not action", "no action is said"),
        ("Do not open the drawer", "denies the action"),
        ("Open the drawer without closing it", "denies the action"),
        ("Open and close the lid on the top of the flask", "several steps"),
        ("Open, close and open the toaster oven", "several steps"),
        ("Close the tap then open it", "several steps"),
        ("Open the microwave and take out the bowl", "several steps"),
        ("Remove the pen from the drawer and close it", "several steps"),
        (
            "Put the pot on the stove, then transfer the blocks and put the li...",
            "cut short on the page",
        ),
        (
            "Take the watermelon toy out of the drawer and put it in the basket",
            "two actions or both signs",
        ),
        (
            "Pick up some of the objects in the bowl and put it in the cup",
            "two actions or both signs",
        ),
        ("Move the basket forward towards the right", "two actions or both signs"),
        ("Put the marker in the mug on the table", "a place that can be read in two ways"),
        (
            "Get the sauce bottle that's furthest from the orange cup and put it on the right side of it",
            "no verb of a pair",
        ),
        ("Remove the white cloth from the glass panel", "no verb of a pair"),
        ("Turn the faucet to the left", "no verb of a pair"),
        ("Use the sponge to wipe the counter", "no verb of a pair"),
    ],
)
def test_the_rule(instruction, action):
    assert read_action(instruction) == action


def test_a_small_copy(tmp_path):
    clips = chiral_clips(make_droid(tmp_path))
    assert len(clips) == 120
    assert clips["clip_id"].iloc[0] == "00000000/2023-07-01/Sat_Jul__1_10:00:00_2023/20103212"
    assert (
        clips["path"].iloc[0]
        == "visualizer/videos/00000000/2023-07-01/Sat_Jul__1_10:00:00_2023/20103212.mp4"
    )
    grouped = clips[clips["group"].notna()]
    assert set(grouped["group"]) == {"open / close: drawer", "put in / take out: cup"}
    assert set(grouped["split"]) == {"test"}
    assert set(clips.loc[clips["group"].isna(), "split"]) == {"train"}
    assert set(grouped["verb"]) == {"open", "close", "put in", "take out"}
    assert clips.groupby("lab")["fold"].nunique().eq(1).all()
    assert grouped["fold"].value_counts().tolist() == [16] * 5
    assert count_groups(clips)["clips"].tolist() == [20] * 4
    assert dict(count_reasons(clips)[["reason", "clips"]].itertuples(index=False)) == {
        "no verb of a pair": 20,
        "several steps": 20,
    }


def test_one_fold_is_an_ordinary_table(tmp_path):
    root = make_droid(tmp_path)
    whole, part = chiral_clips(root), chiral_clips(root, fold=2)
    held = part[part["split"] == "test"]
    assert set(held["clip_id"]) == set(
        whole.loc[(whole["fold"] == 2) & whole["group"].notna(), "clip_id"]
    )
    assert not set(held["lab"]) & set(part.loc[part["split"] == "train", "lab"]), (
        "no lab on both sides"
    )
    with pytest.raises(DatasetError, match="fold 5"):
        chiral_clips(root, fold=5)


def test_the_signs_are_levelled_where_one_is_ahead(tmp_path):
    clips = chiral_clips(make_droid(tmp_path, [*WANTED, "Open the drawer", "Open the top drawer"]))
    assert count_groups(clips)["clips"].tolist() == [20] * 4
    assert (clips["reason"] == "its sign has more clips than the other").sum() == 40
    counts = (
        clips[clips["group"] == "open / close: drawer"]
        .groupby(["fold", "chiral_label"])
        .size()
        .unstack()
    )
    assert (counts[0] == counts[1]).all(), "level in each fold, as far as that can be"


def test_few_clips_make_no_group(tmp_path):
    wanted = ["Open the drawer", "Close the drawer", *(["Stack the cups"] * 3)]
    clips = chiral_clips(make_droid(tmp_path, wanted, copies=1))
    assert set(count_reasons(clips)["reason"]) == {"too few clips of stack / unstack"}
    with pytest.raises(DatasetError, match="no group"):
        chiral_clips(make_droid(tmp_path / "none", ["Wipe the table"]))


def test_kinds_of_things_that_are_few_go_together(tmp_path):
    clips = chiral_clips(
        make_droid(
            tmp_path,
            ["Open the drawer", "Close the oven", "Open the tap", "Close the book"],
            copies=1,
        )
    )
    assert clips["group"].unique().tolist() == ["open / close: other things"]
    assert set(clips["noun"]) == {"other things"}


def test_missing_videos_and_faulty_lines_are_named(tmp_path):
    root = make_droid(tmp_path)
    gone = next((root / "visualizer" / "videos").rglob("*.mp4"))
    gone.unlink()
    text = (root / INDEX).read_text().splitlines()
    broken = "      JSON.parse('{\"info\": broken'),"
    empty = '      JSON.parse(\'{"info": "Open it"}\'),'
    text[6:6] = [broken, empty, text[5], '  JSON.parse(\'{"info": "cut']
    (root / INDEX).write_text("\n".join(text))
    clips = chiral_clips(root)
    assert len(clips) == 119
    assert list(clips.attrs["missing"].values()) == [str(gone.relative_to(root))]
    faults = clips.attrs["unusable"]
    assert list(faults) == [f"index.html line {number}" for number in (7, 8, 9, 10)]
    for fault, words in zip(
        faults.values(),
        ("is not JSON", "has no info, or no src", "is there already", "is cut off"),
        strict=True,
    ):
        assert words in fault
    status = describe(root)
    assert not status.found
    assert status.clips == 119
    assert status.unusable == 4
    assert "git clone" in str(status)
    assert "CC BY 4.0" in str(status)


def test_a_folder_without_the_layout(tmp_path):
    with pytest.raises(DatasetError, match="lacks visualizer/index.html"):
        read_index(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        chiral_clips(tmp_path / "nowhere")
    root = make_droid(tmp_path)
    (root / INDEX).write_text(PAGE)
    with pytest.raises(DatasetError, match="hold no usable row"):
        chiral_clips(root)
    make_droid(tmp_path / "other")
    for video in (tmp_path / "other").rglob("*.mp4"):
        video.unlink()
    with pytest.raises(DatasetError, match="has none of the 120 videos"):
        chiral_clips(tmp_path / "other")


@pytest.mark.parametrize("name", ["droid", "droid-dataset.github.io", "."])
def test_where_it_may_lie(tmp_path, name):
    make_droid(tmp_path / name, copies=1)
    assert find_root(tmp_path) == tmp_path / name and describe(find_root(tmp_path)).clips == 60


def test_a_clip_without_an_instruction_has_a_label(tmp_path):
    clips = chiral_clips(make_droid(tmp_path, [*WANTED, ""]))
    assert clips.loc[clips["reason"] == "no action is said", "label"].eq("(none)").sum() == 20


def test_every_clip_is_scored_once_by_the_other_folds(tmp_path):
    clips = chiral_clips(make_droid(tmp_path))
    signs = 2 * clips["chiral_label"].fillna(0).to_numpy(float) - 1
    embeddings = pd.DataFrame({"sign": signs, "fold": clips["fold"]}).set_axis(clips["clip_id"])
    results = probe_folds(embeddings, clips, "ridge_balanced", bootstrap=50)
    assert sorted(results.predictions["clip_id"]) == sorted(
        clips.loc[clips["group"].notna(), "clip_id"]
    )
    assert results.summary()["mean"] == 100 and results.table["n_train"].eq(32).all()
    noise = pd.DataFrame(
        np.random.default_rng(0).normal(size=(len(clips), 4)), index=embeddings.index
    )
    assert 25 < probe_folds(noise, clips, "ridge_balanced").summary()["mean"] < 75
    with pytest.raises(ProbeError, match="no fold for clips that have a group"):
        probe_folds(embeddings, clips.assign(fold=None))
    with pytest.raises(ProbeError, match="all in one fold"):
        probe_folds(embeddings, clips.assign(fold=0))
    alone = clips[(clips["fold"] == 0) | (clips["chiral_label"] == 1)]
    with pytest.raises(ProbeError, match="in a fold training clips of label 1 only"):
        probe_folds(embeddings, alone)


def test_the_real_clips(shared):
    root = shared / "droid"
    if not root.is_dir():
        pytest.skip("DROID is absent")
    clips = chiral_clips(root)
    assert len(clips) == 1000 and not clips.attrs["missing"] and not clips.attrs["unusable"]
    counts = clips[clips["group"].notna()].groupby("group").size()
    assert counts.to_dict() == {
        "cover / uncover": 28,
        "fold / unfold": 24,
        "move forward / move backward": 18,
        "move right / move left": 86,
        "open / close: door": 24,
        "open / close: drawer": 28,
        "open / close: other things": 28,
        "put in / take out: bowl": 66,
        "put in / take out: box": 36,
        "put in / take out: cup": 110,
        "turn on / turn off": 18,
    }
    assert clips["reason"].value_counts().to_dict() == {
        "no verb of a pair": 272,
        "its sign has more clips than the other": 134,
        "several steps": 78,
        "too few clips of hang / unhang": 9,
        "two actions or both signs": 9,
        "cut short on the page": 8,
        "too few clips of move up / move down": 7,
        "a place that can be read in two ways": 6,
        "too few clips of move near / move away": 5,
        "too few clips of stack / unstack": 4,
        "no action is said": 2,
    }
    assert clips["lab"].nunique() == 10 and clips.groupby("lab")["fold"].nunique().eq(1).all()
    assert describe(root).found
