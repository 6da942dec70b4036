"""One vector a clip: what each method keeps, what is refused by name, the table on disk, and scikit-learn's conventions."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import lift.backbones
from lift.embedding import (
    BASELINES,
    METHODS,
    EmbeddingError,
    LiFTEmbedder,
    embed_features,
    embed_store,
    read_embeddings,
    stream_embeddings,
    write_embeddings,
)
from lift.equivariant import EquivariantCode
from lift.model import LiFT, LiFTConfig
from lift.store import FeatureStore
from lift.variants import variant
from lift.video import VideoError, write_video

DESCRIPTION = {"name": "tiny", "weights": "none", "weights_hash": "abc", "dim": 6}


def tiny_model(dim=6, backbone=DESCRIPTION, **fields):
    torch.manual_seed(0)
    return LiFT(
        LiFTConfig(feature_dim=dim, latent_dim=8, depth=1, heads=2, backbone=backbone, **fields)
    ).eval()


@pytest.fixture
def features():
    return torch.randn(10, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(tmp_path, features):
    store = FeatureStore.create(tmp_path / "store", DESCRIPTION, frames=5, dim=6)
    store.append([f"c{n}" for n in range(7)], features[:7])
    store.append([f"c{n}" for n in range(7, 10)], features[7:])
    return store


def test_baselines_are_what_their_names_say(features):
    x = features.numpy()
    time = np.linspace(0, 1, 5)
    slope = np.polynomial.polynomial.polyfit(time, x.transpose(1, 0, 2).reshape(5, -1), 1)[
        1
    ].reshape(10, 6)
    expected = {
        "mean": x.mean(1),
        "concatenation": x.reshape(10, 30),
        "last_minus_first": x[:, -1] - x[:, 0],
        "late_minus_early": x[:, 3:].mean(1) - x[:, :2].mean(1),
        "slope": slope,
        "moments": np.hstack([x.mean(1), slope]),
    }
    for name in ("concatenation", "last_minus_first", "late_minus_early", "slope"):
        expected[f"unit_{name}"] = expected[name] / np.linalg.norm(
            expected[name], axis=1, keepdims=True
        )
    assert set(expected) == set(BASELINES)
    for method, values in expected.items():
        embedding = embed_features(features, method)
        assert embedding.dtype == np.float32
        np.testing.assert_allclose(embedding, values, atol=1e-5)


def test_the_lift_methods_are_the_models_codes(features):
    model = tiny_model()
    static, dynamic = (
        embed_features(features, f"lift_{code}", model) for code in ("static", "dynamic")
    )
    both = embed_features(features, "lift", model)
    assert both.shape == (10, 16) and both.dtype == np.float32
    np.testing.assert_array_equal(both, np.hstack([static, dynamic]))
    np.testing.assert_allclose(both, model.embed(features).detach().numpy(), atol=1e-6)
    for name, codes in {"lift": both, "lift_dynamic": dynamic}.items():
        unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
        np.testing.assert_allclose(embed_features(features, f"unit_{name}", model), unit, atol=1e-6)
    odd = embed_features(features, "lift_dynamic_odd", model)
    np.testing.assert_allclose(
        2 * odd, dynamic - embed_features(features.flip(1), "lift_dynamic", model), atol=1e-5
    )


def test_a_polynomial_code_is_embedded_whole(features):
    model = variant("polynomial_3")(
        LiFTConfig(feature_dim=features.shape[-1], latent_dim=8, depth=1, heads=2)
    )
    assert embed_features(features, "lift", model).shape[1] == sum(model.code_dims) == 32
    assert embed_features(features, "lift_dynamic", model).shape[1] == 24


def test_time_reversal_of_every_method(features):
    equivariant = EquivariantCode(static_dim=4, dynamic_dim=4).fit(features)
    forward, backward = (
        {m: embed_features(x, m, equivariant) for m in METHODS}
        for x in (features, features.flip(1))
    )
    for method in ("mean", "lift_static"):
        np.testing.assert_allclose(forward[method], backward[method], atol=1e-5)
    odd = ("slope", "last_minus_first", "late_minus_early", "lift_dynamic", "lift_dynamic_odd")
    for method in (*odd, *(f"unit_{name}" for name in odd)):
        np.testing.assert_allclose(forward[method], -backward[method], atol=1e-5)
    for method in ("concatenation", "moments", "lift"):
        assert not np.allclose(forward[method], backward[method], atol=1e-2)


def test_a_clip_that_does_not_move_has_a_unit_slope_of_zeros(features):
    still = features[:1, :1].expand(1, 5, 6)
    np.testing.assert_array_equal(
        embed_features(still, "unit_last_minus_first"), np.zeros((1, 6), np.float32)
    )


def test_a_model_in_training_embeds_without_dropout_and_stays_in_training(features):
    model = tiny_model(dropout=0.5).train()
    first, second = (embed_features(features, "lift", model) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training


@pytest.mark.parametrize("stage", [0, 3])
def test_a_map_of_any_stage_counts_also_of_the_first(tmp_path, stage):
    """Stage 0 is false in Python, and a stage all the same."""
    parts = {
        "name": "tiny", "weights_hash": "1", "dim": 6 + 49 * 2, "grid": 0, "middle": stage,
        "middle_channels": 2,
    }  # fmt: skip
    store = FeatureStore.create(tmp_path / "store", parts, 4, parts["dim"])
    store.append(["a"], torch.randn(1, 4, parts["dim"]))
    plain = {"name": "tiny", "weights_hash": "1", "dim": 6}
    assert embed_store(store, "lift", tiny_model(backbone=plain)).shape == (1, 16), (
        "the whole frame is read"
    )
    other = FeatureStore.create(tmp_path / "plain", plain, 4, 6)
    other.append(["a"], torch.randn(1, 4, 6))
    code = EquivariantCode(static_dim=2, dynamic_dim=2, backbone=parts).fit(
        torch.randn(5, 4, parts["dim"])
    )
    with pytest.raises(EmbeddingError, match=f"--middle {stage}"):
        embed_store(other, "lift", code)


def test_what_does_not_fit_is_refused(features):
    with pytest.raises(EmbeddingError, match="no method 'max'; choose one of mean, concatenation"):
        embed_features(features, "max")
    with pytest.raises(EmbeddingError, match="'lift' needs a LiFT model"):
        embed_features(features, "lift")
    with pytest.raises(EmbeddingError, match="features of 6 dimensions, the model expects 7"):
        embed_features(features, "lift", tiny_model(dim=7))
    with pytest.raises(EmbeddingError, match=r"expected features .* got \(5, 6\)"):
        embed_features(features[0], "mean")
    with pytest.raises(EmbeddingError, match=r"got \(10, 0, 6\)"):
        embed_features(features[:, :0], "mean")
    features[3, 2, 1] = torch.nan
    with pytest.raises(EmbeddingError, match="NaN or infinite values: 1 clips, among them 3"):
        embed_features(features, "mean")
    broken = tiny_model()
    broken.feature_mean.fill_(torch.nan)
    with pytest.raises(EmbeddingError, match="embeddings of the model with NaN"):
        embed_features(features[:2], "lift", broken)


def test_a_store_is_embedded_in_the_order_asked_whatever_the_batch(store, features):
    ids = ["c8", "c0", "c3"]
    model = tiny_model()
    whole = embed_store(store, "lift", model, ids)
    np.testing.assert_allclose(
        whole, embed_features(features[[8, 0, 3]].half(), "lift", model), atol=1e-5
    )
    for batch_size in (1, 2, 100):
        np.testing.assert_allclose(
            embed_store(store, "lift", model, ids, batch_size), whole, atol=1e-5
        )
    assert embed_store(store, "mean").shape == (10, 6)
    tables = list(stream_embeddings(store, "lift", model, ids, batch_size=2))
    assert [list(table.index) for table in tables] == [["c8", "c0"], ["c3"]]
    np.testing.assert_allclose(pd.concat(tables).to_numpy(), whole, atol=1e-5)


def test_no_more_than_a_batch_is_read_at_once(store, monkeypatch):
    sizes, read = [], FeatureStore.read
    monkeypatch.setattr(
        FeatureStore, "read", lambda self, ids=None: sizes.append(len(ids)) or read(self, ids)
    )
    embed_store(store, "mean", batch_size=4)
    assert sizes == [4, 4, 2]


def test_a_store_of_another_backbone_is_refused(store):
    with pytest.raises(EmbeddingError, match="weights_hash 'abc', the model was trained on 'xyz'"):
        embed_store(store, "lift", tiny_model(backbone={**DESCRIPTION, "weights_hash": "xyz"}))
    with pytest.raises(EmbeddingError, match="name 'tiny', the model was trained on 'large'"):
        embed_store(store, "lift", tiny_model(backbone={**DESCRIPTION, "name": "large"}))
    with pytest.raises(EmbeddingError, match="features of 6 dimensions, the model expects 7"):
        embed_store(store, "lift", tiny_model(dim=7))
    with pytest.raises(EmbeddingError, match="1 clips are not in the store, the first is 'nobody'"):
        embed_store(store, "mean", ids=["c1", "nobody"])
    with pytest.raises(EmbeddingError, match="no clips to embed"):
        embed_store(store, "mean", ids=[])
    with pytest.raises(EmbeddingError, match="'lift' needs a LiFT model"):
        stream_embeddings(store, "lift")
    assert embed_store(store, "mean", tiny_model(dim=7)).shape == (10, 6), (
        "a baseline does not care about the model"
    )


def test_the_table_of_embeddings_goes_to_disk_and_back(tmp_path):
    array = np.random.default_rng(0).normal(size=(9000, 3)).astype(np.float32)
    ids = [f"{n:05d}" for n in range(9000)]
    write_embeddings(
        tmp_path / "new" / "e.parquet", ids, array, {"method": "lift", "model": "packaged"}
    )
    table = read_embeddings(tmp_path / "new" / "e.parquet")
    np.testing.assert_array_equal(table.to_numpy(), array)
    assert table.index.tolist() == ids
    assert table.index.name == "clip_id"
    assert (table.dtypes == np.float32).all()
    assert table.attrs["method"] == "lift"
    assert table.attrs["model"] == "packaged"
    assert "lift" in table.attrs["versions"]
    stored = pq.read_schema(tmp_path / "new" / "e.parquet")
    assert stored.field("embedding").type == pa.list_(pa.float32(), 3)
    assert b"lift" in stored.metadata


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "e.parquet"
    write_embeddings(path, ["a"], np.ones((1, 2)))
    before = path.read_bytes()
    for ids, array, words in (
        (["a", "a"], np.ones((2, 2)), "1 ids are duplicated, the first is 'a'"),
        (
            ["a", "b"],
            np.array([[1, 2], [np.nan, 1]]),
            "NaN or infinite values: 1 clips, among them b",
        ),
        (["a"], np.ones((2, 2)), "do not fit together"),
        (["a"], np.ones((1, 0)), "do not fit together"),
    ):
        with pytest.raises(EmbeddingError, match=words):
            write_embeddings(path, ids, array)

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        write_embeddings(path, ["b"], np.ones((1, 2)))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["e.parquet"]


def test_a_file_that_is_no_table_of_embeddings_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.parquet"):
        read_embeddings(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"clip_id": ["a"], "embedding": [1.0]}), tmp_path / "flat.parquet")
    for name in ("text", "other", "flat"):
        with pytest.raises(EmbeddingError, match=f"{name}.parquet: not a table of embeddings"):
            read_embeddings(tmp_path / f"{name}.parquet")


class Corner:
    """Geometric part of the fake backbone; picklable, for worker processes."""

    def __call__(self, frames):
        return frames[:, :4, :4].permute(0, 3, 1, 2).contiguous()


class TinyBackbone(torch.nn.Module):
    """Mean colour of a frame and its square: a feature that knows how bright a frame is."""

    transform, device = Corner(), torch.device("cpu")

    def forward(self, frames):
        colour = frames.float().mean((-1, -2)) / 255  # (B, T, 3)
        return torch.cat([colour, colour.square()], -1)  # (B, T, 6)


@pytest.fixture
def loads(monkeypatch):
    """The backbone is fake; every time it is made is noted."""
    made = []
    monkeypatch.setattr(
        lift.backbones,
        "create_backbone",
        lambda description, **_: made.append(description) or TinyBackbone(),
    )
    return made


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eight clips that get brighter (even) or darker (odd)."""
    folder, paths = tmp_path_factory.mktemp("videos"), []
    for n in range(8):
        ramp = np.linspace(40, 200, 12)[:: 1 if n % 2 == 0 else -1] + n
        frames = np.broadcast_to(ramp[:, None, None, None], (12, 32, 32, 3)).astype(np.uint8)
        write_video(folder / f"{n}.mp4", np.ascontiguousarray(frames))
        paths.append(str(folder / f"{n}.mp4"))
    return paths


def test_the_embedder_is_lazy_and_loads_once(loads, videos):
    embedder = LiFTEmbedder(tiny_model(), frames=5, batch_size=3)
    assert embedder.fit(videos) is embedder and loads == []
    rows = embedder.transform(videos)
    assert rows.shape == (8, 16) and rows.dtype == np.float32 and np.isfinite(rows).all()
    embedder.transform(videos[:1])
    assert loads == [DESCRIPTION]
    embedder.set_params(model=tiny_model(max_frames=3))
    assert not np.allclose(embedder.transform(videos), rows), (
        "a new model is loaded, not the old one kept"
    )


def test_batches_workers_and_containers_change_nothing(loads, videos):
    embedder = LiFTEmbedder(tiny_model(), frames=5)
    rows = embedder.fit_transform(videos)
    for changed in (
        clone(embedder).set_params(batch_size=1),
        clone(embedder).set_params(workers=2, batch_size=3),
    ):
        np.testing.assert_allclose(changed.transform(videos), rows, atol=1e-5)
    for container in (
        np.array(videos),
        pd.Series(videos),
        pd.DataFrame({"path": videos}),
        tuple(videos),
    ):
        np.testing.assert_allclose(embedder.transform(container), rows, atol=1e-6)
    np.testing.assert_allclose(embedder.transform(videos[::-1]), rows[::-1], atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_nearest_frames_are_warned_of(loads, tmp_path, workers):
    ramp = np.linspace(40, 200, 48)[:, None, None, None] + np.arange(32)[:, None]
    noise = np.random.default_rng(0).integers(0, 40, (48, 32, 32, 3))
    options = {"g": "12", "bf": "0"}
    path = write_video(tmp_path / "a.mp4", (ramp + noise).astype(np.uint8), options=options)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="a.mp4"):
        LiFTEmbedder(tiny_model(), frames=12, workers=workers).transform([path])
    embedder = LiFTEmbedder(tiny_model(), frames=12, workers=workers, on_damage="nearest")
    with pytest.warns(UserWarning, match=r"a.mp4: \d of 12 frames stand for damaged ones"):
        assert np.isfinite(embedder.transform([path])).all()
    with pytest.raises(ValueError, match="on_damage"):
        LiFTEmbedder(tiny_model(), on_damage="grey").fit([path])


def test_scikit_learn_conventions(loads, videos):
    embedder = LiFTEmbedder("some/model", frames=8, workers=1, on_error="nan")
    assert clone(embedder).get_params() == embedder.get_params()
    assert embedder.set_params(frames=4).frames == 4
    labels = [n % 2 for n in range(8)]
    pipeline = make_pipeline(LiFTEmbedder(tiny_model(), frames=6), RidgeClassifier())
    assert pipeline.fit(videos, labels).score(videos, labels) == 1
    assert len(cross_val_score(pipeline, np.array(videos), labels, cv=2)) == 2
    named = LiFTEmbedder(tiny_model()).set_output(transform="pandas").fit_transform(videos[:2])
    assert named.columns[[0, 8]].tolist() == ["static0", "dynamic0"] and named.shape == (2, 16)


def test_a_pickle_holds_the_parameters_and_gives_the_same(loads, videos):
    embedder = LiFTEmbedder(tiny_model(), frames=5)
    rows = embedder.fit_transform(videos)
    copy = pickle.loads(pickle.dumps(embedder))
    assert not hasattr(copy, "_loaded")
    np.testing.assert_allclose(copy.transform(videos), rows, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_cannot_be_read_is_named(loads, videos, tmp_path, workers):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths = [videos[0], str(tmp_path / "broken.mp4"), videos[1]]
    embedder = LiFTEmbedder(tiny_model(), frames=5, workers=workers)
    with pytest.raises(VideoError, match="broken.mp4"):
        embedder.transform(paths)
    embedder.set_params(on_error="nan")
    with pytest.warns(UserWarning, match="no embedding: .*broken.mp4"):
        rows = embedder.transform(paths)
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(rows[[0, 2]], embedder.transform([videos[0], videos[1]]), atol=1e-6)
    with pytest.warns(UserWarning, match="broken.mp4"):
        assert np.isnan(embedder.transform([str(tmp_path / "broken.mp4")])).all()
    with pytest.warns(UserWarning, match="broken.mp4"):
        last = embedder.transform([videos[0], str(tmp_path / "broken.mp4")])
    np.testing.assert_allclose(last[0], rows[0], atol=1e-6)


class Harmful(Corner):
    """Does to a worker what a decoder may do, on the clip that begins dark and ends bright (even ones) with level 40 + n."""

    def __init__(self, act, number):
        self.act, self.number = act, number

    def __call__(self, frames):
        if abs(float(frames[0].float().mean()) - (40 + self.number)) < 0.9:
            self.act()
        return super().__call__(frames)


def _raise():
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(
    "act, workers, cause",
    [
        (_raise, 0, "PermissionError.*Permission denied"),
        (_raise, 2, "PermissionError.*Permission denied"),
        (lambda: os._exit(1), 2, r"died \(exit code 1\)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 2, r"died \(SIGKILL\)"),
        (lambda: time.sleep(600), 2, "timed out after 2 s"),
    ],
)
def test_whatever_stops_a_video_is_its_own_failure(loads, videos, monkeypatch, act, workers, cause):
    whole = LiFTEmbedder(tiny_model(), frames=5).transform(videos)
    monkeypatch.setattr(TinyBackbone, "transform", Harmful(act, 4))
    embedder = LiFTEmbedder(
        tiny_model(), frames=5, workers=workers, batch_size=32, timeout=2, on_error="nan"
    )
    with pytest.warns(UserWarning, match=f"no embedding: .*4.mp4: .*{cause}"):
        rows = embedder.transform(videos)
    assert np.isnan(rows[4]).all()
    np.testing.assert_allclose(np.delete(rows, 4, 0), np.delete(whole, 4, 0), atol=1e-5)
    with pytest.raises(VideoError, match=cause):
        embedder.set_params(on_error="raise").transform(videos)


SMALL_SHM = """
mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" -c '
import sys, numpy as np, torch
sys.path.insert(0, sys.argv[1])
import lift.backbones
from test_embedding import TinyBackbone, tiny_model
from lift.embedding import LiFTEmbedder
from lift.video import write_video
class Large(TinyBackbone):
    transform = staticmethod(lambda frames: frames.permute(0, 3, 1, 2).contiguous())
lift.backbones.create_backbone = lambda *_, **__: Large()
write_video(sys.argv[2], np.random.default_rng(0).integers(0, 255, (16, 224, 224, 3), dtype=np.uint8))
print(LiFTEmbedder(tiny_model(), workers=2, batch_size=32).transform([sys.argv[2]] * 40).shape)
' "$1" "$2"
"""


def test_a_small_shared_memory_does_not_matter(tmp_path):
    """A container has 64 MB, a batch of 32 clips takes 77 MB; here there is 1 MB."""
    if subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True
    ).returncode:
        pytest.skip("mounting needs root")
    command = [
        "unshare", "-m", "sh", "-c", SMALL_SHM, sys.executable, str(Path(__file__).parent),
        str(tmp_path / "v.mp4"),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.stdout.strip() == "(40, 16)", result.stderr


def test_senseless_parameters_and_paths_are_refused(loads, videos):
    for parameter, value in (
        ("frames", 0),
        ("batch_size", 0),
        ("workers", -1),
        ("on_error", "ignore"),
        ("timeout", 0),
    ):
        with pytest.raises(ValueError, match=parameter):
            LiFTEmbedder(**{parameter: value}).fit(videos)
    for paths in ([], videos[0], pd.DataFrame({"a": videos, "b": videos})):
        with pytest.raises(ValueError, match="expected a list of video paths"):
            LiFTEmbedder().fit(paths)
    with pytest.raises(EmbeddingError, match="does not say which backbone"):
        LiFTEmbedder(tiny_model(backbone=None)).transform(videos)
    assert loads == []
