"""Kinetics-400, UCF101 and HMDB51 on miniature copies."""

import pytest
from miniature import make_hmdb51, make_kinetics, make_ucf101

from lift.data import actions
from lift.data.status import DatasetError


@pytest.fixture
def kinetics(tmp_path):
    return make_kinetics(tmp_path / "k400")


def test_kinetics(kinetics):
    clips = actions.kinetics_clips(kinetics)
    assert clips["split"].tolist() == ["train", "train", "validation", "validation"]
    assert clips["path"].tolist()[::3] == [
        "train/ski_jumping/-t_aaaaaaa-_000010_000020.mp4",
        "val/abseiling/vbbbbbbbbbb_000000_000010.mp4",
    ]
    assert clips["label"].tolist() == ["ski jumping", "abseiling"] * 2
    assert (
        clips.attrs["missing"]["tcccccccccc_000003_000013"]
        == "train/vault/tcccccccccc_000003_000013.mp4"
    )
    assert set(actions.kinetics_clips(kinetics, subset="temporal")["label"]) == {"ski jumping"}
    with pytest.raises(DatasetError, match="expected 'temporal'"):
        actions.kinetics_clips(kinetics, subset="32")


def test_flat_kinetics(kinetics):
    for path in list(kinetics.rglob("*.mp4")):
        path.rename(kinetics / path.name)
    assert len(actions.kinetics_clips(kinetics)) == 4


def test_unusable_kinetics_rows_are_named(kinetics):
    path = kinetics / "train.csv"
    path.write_text(
        path.read_text()
        + "vault,x,5,5,train\n,y,1,2,train\nvault,z,one,2,train\nabseiling,tbbbbbbbbbb,0,10,train\n"
    )
    clips = actions.kinetics_clips(kinetics)
    assert len(clips) == 4
    assert clips.attrs["unusable"] == {
        "train.csv row 5": "ends (5 s) where it starts (5 s) or before",
        "train.csv row 6": "lacks a label, a youtube_id or whole seconds",
        "train.csv row 7": "lacks a label, a youtube_id or whole seconds",
        "train.csv row 8": "clip tbbbbbbbbbb_000000_000010 is there already",
    }


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101(tmp_path, split):
    clips = actions.ucf101_clips(make_ucf101(tmp_path), split)
    assert clips["split"].value_counts().to_dict() == {"train": 4, "test": 4}
    assert clips["label"].value_counts().to_dict() == {"ApplyEyeMakeup": 4, "Archery": 4}
    assert (
        clips.loc[clips["split"] == "test", "clip_id"].iloc[0]
        == f"v_ApplyEyeMakeup_g{split:02d}_c01"
    )
    assert clips["path"].str.startswith("UCF-101/").all()


def test_ucf101_names_what_it_cannot_use(tmp_path):
    root = make_ucf101(tmp_path)
    (root / "UCF-101/Archery/v_Archery_g01_c01.avi").unlink()
    (root / "testlist01.txt").write_bytes(
        (root / "testlist01.txt").read_bytes() + b"Dancing/v_Dancing_g01_c01.avi\r\n"
    )
    clips = actions.ucf101_clips(root)
    assert clips.attrs["missing"] == {"v_Archery_g01_c01": "UCF-101/Archery/v_Archery_g01_c01.avi"}
    assert list(clips.attrs["unusable"]) == ["testlist01.txt line 5"]


def test_hmdb51(tmp_path):
    clips = actions.hmdb51_clips(make_hmdb51(tmp_path))
    assert len(clips) == 4
    assert set(clips["label"]) == {"brush hair", "wave"}
    assert set(clips["split"]) == {"train", "test"}
    assert "brush_hair/Pay & [Brush] it!_nm_np1_fr_med_1.avi" in set(clips["path"])
    assert not clips["path"].str.contains("(1)", regex=False).any(), "0 is not used"


def test_hmdb51_names_what_it_cannot_use(tmp_path):
    root = make_hmdb51(tmp_path)
    path = root / "wave_test_split1.txt"
    path.write_text(path.read_text() + "more.avi 7 \nmore.avi\n")
    clips = actions.hmdb51_clips(root)
    assert list(clips.attrs["unusable"]) == [
        "wave_test_split1.txt line 4",
        "wave_test_split1.txt line 5",
    ]
    assert len(clips) == 4


def test_hmdb51_has_a_chiral_pair(tmp_path):
    root = make_hmdb51(tmp_path, classes=("brush_hair", "sit", "stand"))
    (root / "sit_test_split1.txt").write_text(
        (root / "sit_test_split1.txt").read_text() + "gone.avi 1 \nfaulty 7 \n"
    )
    clips = actions.hmdb51_chiral_clips(root)
    signs = set(zip(clips["label"], clips["chiral_label"], strict=True))
    assert clips["group"].eq("sit_stand").all() and signs == {("sit", 0), ("stand", 1)}
    assert clips.groupby("label")["split"].apply(sorted).to_dict() == {
        "sit": ["test", "train"],
        "stand": ["test", "train"],
    }
    assert list(clips.attrs["missing"]) == ["sit/gone"]
    assert list(clips.attrs["unusable"]) == ["sit_test_split1.txt line 5"]
    with pytest.raises(DatasetError, match="no usable clip of the class sit or stand"):
        actions.hmdb51_chiral_clips(make_hmdb51(tmp_path / "other"))


@pytest.mark.parametrize(
    ("make_clips", "describe"),
    [
        (actions.kinetics_clips, actions.describe_kinetics),
        (actions.ucf101_clips, actions.describe_ucf101),
        (actions.hmdb51_clips, actions.describe_hmdb51),
    ],
)
def test_an_empty_folder_and_a_file(tmp_path, make_clips, describe):
    with pytest.raises(DatasetError, match="lacks"):
        make_clips(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="is a file"):
        make_clips(tmp_path / "file")
    status = describe(tmp_path)
    assert not status.found and status.clips == 0 and status.source in str(status)


def test_mixed_encodings_are_refused(tmp_path):
    root = make_ucf101(tmp_path)
    (root / "trainlist01.txt").write_bytes(b"Archery/v.avi 2\r\nCaf\xe9/v.avi 1\r\n")
    with pytest.raises(DatasetError, match=r"trainlist01\.txt: line 2 is not UTF-8"):
        actions.ucf101_clips(root)


def test_describe_of_complete_copies(tmp_path):
    assert actions.describe_ucf101(make_ucf101(tmp_path / "u")).found
    assert actions.describe_hmdb51(make_hmdb51(tmp_path / "h")).found
    status = actions.describe_kinetics(make_kinetics(tmp_path / "k"))
    assert status.clips == 4
    assert status.missing == [
        "videos of 2 clips, the first: "
        "train/vault/tcccccccccc_000003_000013.mp4, val/vault/vcccccccccc_000003_000013.mp4"
    ]


def test_real_avi_is_read(tmp_path):
    from lift.video import read_clip

    root = make_hmdb51(tmp_path, real=True)
    for path in actions.hmdb51_clips(root)["path"]:
        assert read_clip(root / path, 4).shape == (4, 32, 32, 3)
