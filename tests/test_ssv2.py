"""Something-Something V2 on a miniature copy."""

import json

import pytest
from miniature import make_chirality_lists, make_ssv2

from lift.data import ssv2
from lift.data.chiral import statistics, write_lists
from lift.data.status import DatasetError


@pytest.fixture
def root(tmp_path):
    return make_ssv2(tmp_path / "ssv2")


def test_classes(root):
    clips = ssv2.ssv2_clips(root)
    assert len(clips) == 72
    assert clips["label"].nunique() == 8
    assert not clips.attrs["missing"]
    assert not clips.attrs["unusable"]
    assert clips["split"].value_counts().to_dict() == {"train": 48, "validation": 24}
    first = clips.set_index("clip_id").loc["69707"]
    assert first["path"] == "20bn-something-something-v2/69707.webm"
    assert first["label"] == "Moving [something] down"
    assert clips["start"].isna().all() and clips.attrs["root"] == str(root)


def test_temporal_subset(root):
    assert set(ssv2.ssv2_clips(root, subset="temporal")["label"]) == {
        "Moving [something] and [something] closer to each other",
        "Moving [something] and [something] away from each other",
    }
    with pytest.raises(DatasetError, match="expected 'temporal'"):
        ssv2.ssv2_clips(root, subset="time")


def test_older_names_beside_the_videos(root):
    for path in (root / "labels").glob("*.json"):
        path.rename(root / f"something-something-v2-{path.name}")
    (root / "20bn-something-something-v2").rename(root / "videos")
    assert len(ssv2.ssv2_clips(root)) == 72


def test_missing_videos_are_named_and_cost_nothing_else(root):
    (root / "20bn-something-something-v2/69707.webm").unlink()
    clips = ssv2.ssv2_clips(root)
    assert len(clips) == 71
    assert clips.attrs["missing"] == {"69707": "20bn-something-something-v2/69707.webm"}
    status = ssv2.describe(root)
    assert not status.found and status.clips == 71 and "69707.webm" in status.missing[0]


def test_no_video_at_all_is_refused(root):
    for path in (root / "20bn-something-something-v2").iterdir():
        path.unlink()
    with pytest.raises(
        DatasetError,
        match="has none of the 72 videos; the first looked for: 20bn-something-something-v2/69701.webm",
    ):
        ssv2.ssv2_clips(root)


def test_unusable_entries_are_named_and_cost_nothing_else(root):
    path = root / "labels/train.json"
    entries = json.loads(path.read_text())
    entries[0]["id"] = entries[1]["id"]
    entries[2]["template"] = "Painting [something]"
    entries[3].pop("id")
    entries.append("text")
    path.write_text(json.dumps(entries))
    clips = ssv2.ssv2_clips(root)
    assert len(clips) == 69
    assert clips.attrs["unusable"] == {
        "train.json entry 2": "id 69702 is there already",
        "train.json entry 3": "template 'Painting [something]' is not in labels.json",
        "train.json entry 4": "has no id",
        "train.json entry 49": "has no id",
    }


def test_broken_files_are_refused(root):
    path = root / "labels/validation.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DatasetError, match=r"validation\.json: line 1 is not JSON"):
        ssv2.ssv2_clips(root)
    (root / "labels/labels.json").unlink()
    with pytest.raises(DatasetError, match=r"lacks labels/labels\.json or "):
        ssv2.ssv2_clips(root)
    assert not ssv2.describe(root).found
    with pytest.raises(DatasetError, match="is a file"):
        ssv2.ssv2_clips(path)


def test_mined_groups(root):
    rows = ssv2.mine(root, rule="all")
    groups = set(rows[["verb_forward", "group_noun"]].itertuples(index=False, name=None))
    assert groups == {
        ("Moving [something] down", "something"),
        ("Moving [something] and [something] away from each other", "something"),
        ("Closing [something]", "object"),
        ("Closing [something]", "drawer"),
        ("Closing [something]", "bottle"),
    }
    one = rows.set_index("id").loc["69707"]
    expected = ("moving pen down", 4, "['something']", 1)
    assert (one["label"], one["target"], one["noun"], one["chiral_label"]) == expected


def write_labels(root, nouns):
    """Validation annotations of up and down: a noun to its clips of up and of down."""
    (root / "labels.json").write_text(
        json.dumps({"Moving something up": "0", "Moving something down": "1"})
    )
    entries = []
    for noun, counts in nouns.items():
        for word, count in zip(("up", "down"), counts, strict=True):
            template = f"Moving [something] {word}"
            entries += [
                {"label": noun, "template": template, "placeholders": [noun]} for _ in range(count)
            ]
    (root / "validation.json").write_text(
        json.dumps([{"id": str(i), **entry} for i, entry in enumerate(entries)])
    )


def test_the_published_like_rule_keeps_frequent_nouns(tmp_path):
    write_labels(
        tmp_path, {"pen": (500, 400), "a fork": (250, 260), "cup": (200, 3), "boot": (9, 0)}
    )
    rows = ssv2.mine(tmp_path)
    assert set(rows["label"]) == {"pen", "a fork"} and len(rows) == 1410
    assert rows.attrs["clips_per_class"] in range(4, 251)
    assert len(ssv2.mine(tmp_path, rule="all")) == 1622
    with pytest.raises(DatasetError, match="expected 'published-like' or 'all'"):
        ssv2.mine(tmp_path, rule="some")


def test_a_pair_list_of_ones_own(tmp_path):
    write_labels(tmp_path, {"pen": (3, 3)})
    own = tmp_path / "pairs.csv"
    own.write_text("dataset,forward,reverse\nssv2,Moving [something] up,Moving [something] down\n")
    rows = ssv2.mine(tmp_path, pairs=own)
    assert rows.loc[rows["template"] == "Moving [something] up", "chiral_label"].eq(1).all()


def test_the_authors_lists_win(root):
    mined = ssv2.chiral_clips(root, rule="all")
    assert mined.attrs["source"] == "mined from the annotations"
    assert statistics(mined)["groups"].item() == 5
    make_chirality_lists(root, "ssv2")
    clips = ssv2.chiral_clips(root)
    assert clips["clip_id"].tolist() == ["69707", "69708", "69713", "69752", "69755"]
    assert clips["chiral_label"].tolist() == [1, 1, 0, 1, 0] and "lists in" in clips.attrs["source"]


def test_lists_from_elsewhere_with_a_missing_video(root, tmp_path):
    lists = write_lists(ssv2.mine(root, rule="all"), tmp_path / "lists", "ssv2")[0].parent
    (root / "20bn-something-something-v2/69707.webm").unlink()
    clips = ssv2.chiral_clips(root, lists)
    assert list(clips.attrs["missing"]) == ["69707"] and "69707" not in set(clips["clip_id"])
    with pytest.raises(DatasetError, match="lacks chiral_groups-ssv2"):
        ssv2.chiral_clips(root, root / "labels")


def test_real_videos_are_read(tmp_path):
    from lift.video import probe_video, read_clip

    root = make_ssv2(tmp_path, clips=1, real=True)
    row = ssv2.chiral_clips(root, rule="all").iloc[0]
    assert read_clip(root / row["path"], 4).shape == (4, 32, 32, 3)
    info = probe_video(root / row["path"])
    assert info.codec == "vp9" and info.frames_per_second == pytest.approx(12)
