"""Data sets with cards, and MTEB: what is written is what the hub's own libraries and MTEB read."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from lift.io import InputError, MissingExtraError
from lift.sharing import (
    FACTS,
    Facts,
    _frames_of,
    chiral_task,
    list_clips,
    mteb_encoder,
    write_dataset,
)
from lift.video import write_video

SIGNS = {1: "moving right", 0: "moving left"}


def spot_frames(sign: int, row: int, frames: int = 12) -> np.ndarray:
    """A bright spot that moves to the right (1) or to the left (0), `(T, 32, 64, 3)` uint8."""
    clip = np.zeros((frames, 32, 64, 3), np.uint8)
    for t in range(frames):
        clip[t, row : row + 8, 4 * t : 4 * t + 8] = 255
    return clip if sign else clip[::-1]


def chiral_table(folder, groups=("spot", "dot & line"), train=6, validation=4) -> pd.DataFrame:
    rows = []
    for group in groups:
        for split, count in (("train", train), ("validation", validation)):
            for sign in (0, 1):
                for n in range(count):
                    name = f"{groups.index(group)}-{split}-{sign}-{n}"
                    if folder is not None:
                        write_video(
                            folder / f"{name}.mp4", spot_frames(sign, 2 * n + (group == "spot"))
                        )
                    rows.append({
                        "clip_id": name, "path": f"{name}.mp4", "start": None, "end": None,
                        "split": split, "label": SIGNS[sign], "group": group,
                        "chiral_label": sign, "verb": SIGNS[sign], "noun": group,
                    })  # fmt: skip
    return pd.DataFrame(rows).astype({"start": float, "end": float})


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    """A data set with videos of two groups."""
    folder = tmp_path_factory.mktemp("shared")
    clips = chiral_table(folder)
    return write_dataset(clips, folder / "dataset", "synthetic", folder).parent


@pytest.mark.parametrize("name", FACTS)
def test_a_card_is_what_the_hub_reads(tmp_path, name):
    clips = chiral_table(None)
    clips.loc[len(clips)] = {
        **clips.iloc[0],
        "clip_id": "alone",
        "group": None,
        "chiral_label": None,
    }
    clips.attrs = {"missing": {"gone": "no file"}, "unusable": {}}
    page = write_dataset(clips, tmp_path / "lists", name)
    card = DatasetCard.load(page)
    header = card.data.to_dict()
    assert header["license"] == FACTS[name].licence
    assert (
        ("license_name" in header)
        == (FACTS[name].licence == "other")
        == (page.parent / "LICENSE").is_file()
    )
    assert [config["config_name"] for config in header["configs"]] == [
        "default",
        "dot-line",
        "spot",
    ]
    for config in header["configs"]:
        for files in config["data_files"]:
            found = list(page.parent.glob(files["path"]))
            assert sum(pq.read_metadata(path).num_rows for path in found) == {
                ("default", "train"): 24, ("default", "validation"): 16,
            }.get((config["config_name"], files["split"]), 12 if files["split"] == "train" else 8)  # fmt: skip
    assert "1 clips of the table belong to no group" in card.text
    assert "1 without a video (gone)" in card.text and "40 clips" in card.text
    assert FACTS[name].rule in card.text and "2 groups, 24 training clips" in card.text


def test_a_list_holds_what_the_table_held(tmp_path):
    clips = chiral_table(None).assign(fold=3)
    clips.loc[0, "start"] = 1.5
    folder = write_dataset(clips, tmp_path / "lists", "epic").parent
    parts = [pd.read_parquet(path) for path in sorted(folder.glob("data/*/*.parquet"))]
    back = pd.concat(parts).sort_values("clip_id").reset_index(drop=True)
    wanted = clips.sort_values("clip_id").reset_index(drop=True)
    assert (
        back["start"].equals(wanted["start"])
        and (back["chiral_label"] == wanted["chiral_label"]).all()
    )
    assert list(back["group"]) == list(wanted["group"]) and set(back["fold"]) == {"3"}


def test_videos_are_in_the_data_set_byte_by_byte(shared_folder):
    table = pq.read_table(shared_folder / "data" / "spot" / "train.parquet")
    for row in table.to_pylist():
        file = shared_folder.parent / row["path"]
        assert row["video"] == {"bytes": file.read_bytes(), "path": file.name}
    assert b'"_type": "Video"' in table.schema.metadata[b"huggingface"]


def test_what_cannot_be_shared_is_refused_before_anything_is_written(tmp_path):
    clips = chiral_table(None)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no facts about 'kinetics'; there are synthetic"):
        write_dataset(clips, out, "kinetics")
    with pytest.raises(InputError, match="no chiral group"):
        write_dataset(clips.drop(columns=["group", "chiral_label"]), out, "epic")
    with pytest.raises(InputError, match="two groups have the name 'a-b'"):
        write_dataset(chiral_table(None, ("a b", "a&b")), out, "epic")
    with pytest.raises(InputError, match="'default' is the name of all groups together"):
        write_dataset(chiral_table(None, ("default", "spot")), out, "epic")
    with pytest.raises(InputError, match="1 clips are parts of files, the first is '0-train-0-0'"):
        write_dataset(
            clips.assign(start=[1.0] + [np.nan] * (len(clips) - 1)), out, "epic", tmp_path
        )
    with pytest.raises(InputError, match="1 videos are not there, the first is .*0-train-0-0.mp4"):
        write_dataset(clips[:1], out, "epic", tmp_path)
    assert not out.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(InputError, match="full: is not empty"):
        write_dataset(clips, tmp_path / "full", "epic")


def test_facts_of_ones_own_make_a_card(tmp_path):
    facts = Facts("My clips: a test", "cc0-1.0", "Free.", "My camera.", "By hand.")
    page = write_dataset(chiral_table(None), tmp_path / "mine", facts)
    header = yaml.safe_load(page.read_text().split("---")[1])
    assert header["pretty_name"] == "My clips: a test" and "license_name" not in header


class Decoder:
    """What torchcodec gives, as far as MTEB uses it."""

    def __init__(self, frames: np.ndarray):
        import torch

        self.frames = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)  # (T, 3, H, W)
        self.metadata = type("Metadata", (), {"num_frames": len(frames)})

    def get_frames_at(self, indices):
        return type("Batch", (), {"data": self.frames[indices]})


def test_frames_come_alike_from_a_decoder_a_file_and_its_bytes(tmp_path):
    path = write_video(tmp_path / "clip.mp4", spot_frames(1, 4))
    file = _frames_of({"path": str(path), "bytes": None}, 5)
    held = _frames_of({"path": None, "bytes": path.read_bytes()}, 5)
    assert file.shape == (5, 32, 64, 3) and (file == held).all()
    assert (_frames_of(Decoder(spot_frames(1, 4)), 5) == spot_frames(1, 4)[[0, 2, 5, 8, 11]]).all()
    with pytest.raises(InputError, match="expected a video of MTEB, got str"):
        _frames_of("clip.mp4", 5)


def test_without_mteb_the_error_names_the_extra(shared_folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mteb", None)
    for ask in (lambda: chiral_task(shared_folder), mteb_encoder):
        with pytest.raises(MissingExtraError, match=r'pip install "lift\[mteb\]"'):
            ask()


@pytest.fixture
def mteb(tmp_path, monkeypatch):
    """MTEB, with the cache of the data sets that it reads in the test's own folder."""
    mteb = pytest.importorskip("mteb")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return mteb


def test_mteb_reads_the_data_set_and_scores_what_knows_the_order(mteb, shared_folder):
    """A known embedder, so that the score is known: where the spot is in the last frame."""
    task = chiral_task(shared_folder)
    for look, expected in ((last_place, 1.0), (lambda video: last_place(video.max(0)[None]), 0.5)):
        encoder = known_encoder(look)
        result = mteb.evaluate(
            encoder, task, cache=None, show_progress_bar=False, co2_tracker=False
        )
        scores = result.task_results[0].scores["validation"]
        assert {row["hf_subset"] for row in scores} == {"spot", "dot-line"}
        assert [row["main_score"] for row in scores] == [expected, expected]


def known_encoder(look):
    """An encoder that gives `look` of the frames `(T, H, W, 3)` of each video."""
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder

    class Known(AbsEncoder):
        mteb_model_meta = ModelMeta.create_empty({"name": "known/known", "modalities": ["video"]})

        def encode(self, inputs, **kwargs):
            videos = [_frames_of(video, 12) for batch in inputs for video in batch["video"]]
            return np.stack([look(video) for video in videos])

    return Known()


def last_place(video: np.ndarray) -> np.ndarray:
    """Where the spot is in the last frame, a vector of the frame's width."""
    return (video[-1] > 128).mean((0, 2))


def test_the_packaged_model_runs_in_mteb(mteb, shared_folder):
    from mteb.models import EncoderProtocol

    encoder = mteb_encoder(frames=4, device="cpu")
    assert isinstance(encoder, EncoderProtocol)
    result = mteb.evaluate(
        encoder, chiral_task(shared_folder, groups=["spot"]), cache=None, show_progress_bar=False,
        co2_tracker=False,
    )  # fmt: skip
    (row,) = result.task_results[0].scores["validation"]
    assert row["main_score"] > 0.9 and encoder.mteb_model_meta.name == "lift/packaged-4-frames"


def test_a_folder_without_a_card_and_a_group_that_is_not_there_are_named(
    mteb, shared_folder, tmp_path
):
    with pytest.raises(InputError, match="no README.md here"):
        chiral_task(tmp_path)
    with pytest.raises(InputError, match="no group 'door'; there are dot-line, spot"):
        chiral_task(shared_folder, groups=["door"])


def test_what_is_no_task_is_refused(mteb, tmp_path):
    clips = chiral_table(None)
    lists = write_dataset(clips, tmp_path / "lists", "ssv2").parent
    with pytest.raises(InputError, match="lists without videos"):
        chiral_task(lists).load_data()
    half = clips[(clips["group"] != "spot") | (clips["split"] == "train")]
    uneven = write_dataset(half, tmp_path / "uneven", "ssv2").parent
    with pytest.raises(InputError, match="1 groups lack .* the first is 'spot'"):
        chiral_task(uneven)
    assert chiral_task(uneven, groups=["dot-line"]).hf_subsets == ["dot-line"]
    with pytest.raises(InputError, match="MTEB refuses the field 'colour' of a task"):
        chiral_task(lists, colour="red")


def test_a_data_set_of_the_hub_is_named_by_its_commit(mteb, shared_folder, tmp_path, monkeypatch):
    """The hub cannot be reached here: its cache is as `huggingface_hub` documents it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    page = tmp_path / "snapshots" / commit / "README.md"
    page.parent.mkdir(parents=True)
    page.write_bytes((shared_folder / "README.md").read_bytes())
    asked = {}

    def download(repo, file, **options):
        asked.update(options, repo=repo, file=file)
        return str(page)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    task = chiral_task("lift/chiral", "v1")
    assert task.metadata.dataset == {"path": "lift/chiral", "revision": commit}
    assert task.metadata.name == "SyntheticChiralVideos-01234567"
    wanted = {"repo": "lift/chiral", "file": "README.md", "repo_type": "dataset", "revision": "v1"}
    assert asked == wanted
    monkeypatch.undo()
    with pytest.raises(InputError, match="a/b/c: no folder, and no data set of the hub"):
        chiral_task("a/b/c")


def test_the_metadata_is_as_mteb_asks_for_a_new_task(mteb, shared_folder, tmp_path):
    from mteb.abstasks.classification import AbsTaskClassification

    task = chiral_task(shared_folder, date=("2026-01-01", "2026-01-31"))
    assert isinstance(task, AbsTaskClassification) and task.metadata.is_filled()
    assert task.modalities == ["video"] and task.metadata.license == "not specified"
    lists = write_dataset(chiral_table(None), tmp_path / "lists", "epic").parent
    assert chiral_task(lists).metadata.license == "cc-by-nc-4.0"
    assert chiral_task(lists, name="ChiralEpic").metadata.name == "ChiralEpic"


def test_test_clips_are_scored_where_there_are_some(mteb, tmp_path):
    table = chiral_table(None)
    assert chiral_task(
        write_dataset(table, tmp_path / "a", "epic").parent
    ).metadata.eval_splits == ["validation"]
    table["split"] = table["split"].replace("validation", "test")
    assert chiral_task(
        write_dataset(table, tmp_path / "b", "epic").parent
    ).metadata.eval_splits == ["test"]


def faint_sign(video: np.ndarray) -> np.ndarray:
    """The sign under noise, which the row of the spot and the sign seed."""
    row = int((video.max((0, 2, 3)) > 128).argmax())
    sign = int(last_place(video)[32:].any())
    return np.random.default_rng(2 * row + sign).normal(size=3) + [0.7 * sign, 0, 0]


def test_mteb_gives_the_accuracy_of_our_own_protocol(mteb, shared_folder):
    from lift.probes import probe_groups

    encoder = known_encoder(faint_sign)
    result = mteb.evaluate(
        encoder, chiral_task(shared_folder), cache=None, show_progress_bar=False, co2_tracker=False
    )
    files = sorted(shared_folder.glob("data/*/*.parquet"))
    clips = pd.concat([pq.read_table(file).to_pandas() for file in files], ignore_index=True)
    vectors = encoder.encode([{"video": clips["video"].tolist()}])
    embeddings = pd.DataFrame(vectors, index=clips["clip_id"])
    ours = probe_groups(embeddings, clips.drop(columns="video"), bootstrap=1).table
    wanted = dict(zip(ours["group"].str.replace(" & ", "-"), ours["accuracy"] / 100, strict=True))
    rows = result.task_results[0].scores["validation"]
    assert {row["hf_subset"]: row["accuracy"] for row in rows} == pytest.approx(wanted)
    assert 0.5 < np.mean(list(wanted.values())) < 1  # neither chance nor certainty


def test_kept_results_are_read_again_and_those_of_other_data_are_not(mteb, tmp_path):
    """Wrong signs in a data set of the same name: its score must not come from MTEB's cache."""
    clips = chiral_table(tmp_path, groups=("spot",))
    swapped = clips["split"] == "validation"
    wrong = clips.assign(
        chiral_label=clips["chiral_label"].where(~swapped, 1 - clips["chiral_label"])
    )
    cache = mteb.ResultCache(tmp_path / "results")
    for table, folder, score in ((clips, "right/data", 1.0), (wrong, "wrong/data", 0.0)):
        data = write_dataset(table, tmp_path / folder, "synthetic", tmp_path).parent
        options = {"cache": cache, "show_progress_bar": False, "co2_tracker": False}
        encoder = known_encoder(last_place)
        assert (
            mteb.evaluate(encoder, chiral_task(data), **options).task_results[0].get_score()
            == score
        )
        task = chiral_task(data)
        again = mteb.evaluate(encoder, task, overwrite_strategy="only-cache", **options)
        assert again.task_results[0].get_score() == score
        read = cache.load_results(models=["known/known"], tasks=[task])
        assert read.model_results[0].task_results[0].get_score() == score


def test_two_models_and_two_numbers_of_frames_have_results_of_their_own(mteb, tmp_path):
    from lift.embedding import load_model

    model = load_model()
    other = load_model().set_params(emphasis=3.0)
    metas = [
        mteb_encoder(which, frames, "cpu").mteb_model_meta
        for which, frames in ((None, 16), (None, 8), (model, 16), (other, 16))
    ]
    cache = mteb.ResultCache(tmp_path)
    paths = {cache.get_task_result_path("Task", meta) for meta in metas}
    assert len(paths) == 4 and metas[2].name == "lift/EquivariantCode-16-frames"
    assert metas[0].revision == metas[2].revision != metas[3].revision
    assert metas[0].modalities == ["video"] and metas[0].embed_dim == sum(model.code_dims)


def test_where_torchcodec_fails_the_files_are_handed_over(mteb, shared_folder, monkeypatch, caplog):
    """It is installed and finds no FFmpeg: what it raises then is a RuntimeError."""
    from datasets import Video

    def fails(self, value, *args, **kwargs):
        assert self.decode
        raise RuntimeError("Could not load libtorchcodec. Likely causes: FFmpeg is not here")

    monkeypatch.setattr(Video, "decode_example", fails)
    task = chiral_task(shared_folder, groups=["spot"])
    task.load_data()
    assert task.dataset["spot"]["train"][0]["video"]["bytes"][4:8] == b"ftyp"
    assert "handed over as files: Could not load libtorchcodec" in caplog.text


@pytest.mark.parametrize("dataset", ["ssv2", "epic", "charades"])
def test_mined_lists_are_shared_without_a_video(tmp_path, dataset):
    """From annotations to a card, with no video on the machine."""
    from importlib import import_module

    import miniature

    from lift.data.chiral import write_lists

    root = getattr(miniature, f"make_{dataset}")(tmp_path / "data", clips=6)
    rows = import_module(f"lift.data.{dataset}").mine(root, rule="all")
    write_lists(rows, tmp_path / "lists", dataset)
    clips = list_clips(tmp_path / "lists", dataset)
    assert len(clips) == len(rows) and clips["clip_id"].is_unique
    assert clips["start"].notna().all() == (dataset != "ssv2")
    page = write_dataset(clips, tmp_path / "shared", dataset)
    parts = [pq.read_metadata(path).num_rows for path in page.parent.glob("data/*/*.parquet")]
    assert sum(parts) == len(rows)
    assert f"{clips['group'].nunique()} groups" in page.read_text()


def test_lists_of_another_data_set_are_refused(tmp_path):
    with pytest.raises(InputError, match="no lists of 'kinetics'; there are those of ssv2"):
        list_clips(tmp_path, "kinetics")


def test_the_datasets_library_reads_one_group_and_all(mteb, shared_folder):
    from datasets import Video, load_dataset

    one, every = load_dataset(str(shared_folder), "spot"), load_dataset(str(shared_folder))
    assert one.num_rows == {"train": 12, "validation": 8}
    assert every.num_rows == {"train": 24, "validation": 16}
    assert isinstance(one["train"].features["video"], Video)


def test_the_datasets_library_reads_a_folder_anew_and_groups_of_one_split(mteb, tmp_path):
    """`datasets` caches by the card: the same folder with other files must have another card."""
    import shutil

    from datasets import load_dataset

    clips = chiral_table(None, groups=("spot",))
    for table, labels in ((clips, {0, 1}), (clips.assign(chiral_label=1), {1})):
        shutil.rmtree(tmp_path / "lists", ignore_errors=True)
        folder = write_dataset(table[table["split"] == "train"], tmp_path / "lists", "epic").parent
        read = load_dataset(str(folder), "spot")
        assert list(read) == ["train"] and set(read["train"]["chiral_label"]) == labels
