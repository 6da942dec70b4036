"""Diving48: lists in the true format, and each way in which they can be wrong."""

import json

import pytest
from miniature import make_video

from lift.data.diving48 import describe_diving48, diving48_clips
from lift.data.status import DatasetError

VOCABULARY = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]]


def entry(name, label=0):
    return {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 3}


@pytest.fixture
def diving(tmp_path):
    (tmp_path / "Diving48_vocab.json").write_text(json.dumps(VOCABULARY))
    write(tmp_path, "train", [entry("_8Vy3dlHg2w_00000"), entry("b_00001", 1)])
    write(tmp_path, "test", [entry("c_00000", 1)])
    for name in ("_8Vy3dlHg2w_00000", "b_00001", "c_00000"):
        make_video(tmp_path / "rgb" / f"{name}.mp4", 1, 8, "libx264", False)
    return tmp_path


def write(root, split, entries):
    (root / f"Diving48_V2_{split}.json").write_text(json.dumps(entries))


def test_labels_are_places_in_the_vocabulary_and_splits_keep_their_names(diving):
    table = diving48_clips(diving).set_index("clip_id")
    assert table["label"].to_dict() == {
        "_8Vy3dlHg2w_00000": "Back 15som 05Twis FREE",
        "b_00001": "Forward 25som NoTwis PIKE",
        "c_00000": "Forward 25som NoTwis PIKE",
    }
    assert list(table["split"]) == ["train", "train", "test"]
    assert describe_diving48(diving).found


@pytest.mark.parametrize("folder", ["videos", "."])
def test_videos_may_lie_elsewhere(diving, folder):
    (diving / folder).mkdir(exist_ok=True)
    for path in (diving / "rgb").iterdir():
        path.rename(diving / folder / path.name)
    assert len(diving48_clips(diving)) == 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (entry("d", 2), "label 2 is not in the vocabulary"),
        (entry("d", -1), "label -1 is not"),
        (entry("d", True), "label True is not"),
        (entry("d", "0"), "label '0' is not"),
        ({"label": 0}, "has no vid_name"),
        (["d", 0], "has no vid_name"),
        (entry("c_00000", 1), "is listed twice"),
    ],
)
def test_a_faulty_entry_is_named_and_left_out(diving, fault, cause):
    write(diving, "test", [entry("c_00000", 1), fault])
    table = diving48_clips(diving)
    assert len(table) == 3
    assert any(cause in reason for reason in table.attrs["unusable"].values())


def test_a_missing_video_is_named(diving):
    (diving / "rgb" / "c_00000.mp4").unlink()
    assert "c_00000" in diving48_clips(diving).attrs["missing"]
    status = describe_diving48(diving)
    assert not status.found and "no usable clip of the split validation" in str(status)


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("Diving48_vocab.json", "{}", "Diving48_vocab.json"),
        ("Diving48_vocab.json", "[]", "no list of classes"),
        ("Diving48_vocab.json", "[1]", "no list of classes"),
        ("Diving48_V2_train.json", "[{", "Diving48_V2_train.json"),
        ("Diving48_vocab.json", None, "Diving48_vocab.json"),
    ],
)
def test_a_broken_file_is_named(diving, name, text, cause):
    (diving / name).unlink()
    if text is not None:
        (diving / name).write_text(text)
    with pytest.raises(DatasetError, match=cause):
        diving48_clips(diving)


def test_no_list_at_all(diving):
    for split in ("train", "test"):
        (diving / f"Diving48_V2_{split}.json").unlink()
    with pytest.raises(DatasetError, match="Diving48_V2_train.json"):
        diving48_clips(diving)
