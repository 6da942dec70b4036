"""Retrieval: exact on cases small enough to work out by hand, refusing what has no answer."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from lift.retrieval import RetrievalError, nearest, retrieve, retrieve_from_galleries


def table(**codes: list[float]) -> pd.DataFrame:
    return pd.DataFrame(codes, dtype=float).T


GALLERY = table(east=[1, 0], far_east=[9, 0], north=[0, 1], west=[-1, 0])


@pytest.fixture
def chiral() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two groups on two axes; the sign of the axis is the sign of the action. Two training clips per class, one query."""
    rows, codes = [], {}
    for axis, group in enumerate(("door", "glass")):
        for sign in (0, 1):
            for n, split in enumerate(("train", "train", "validation")):
                clip_id = f"{group}-{sign}-{n}"
                rows.append((clip_id, split, group, sign))
                codes[clip_id] = (2 * sign - 1) * (n + 1) * np.eye(2)[axis]
    return table(**codes), pd.DataFrame(rows, columns=["clip_id", "split", "group", "chiral_label"])


def test_neighbours_come_in_order_of_cosine_whatever_their_length():
    found = nearest(table(query=[2, 0.5]), GALLERY, k=4)
    assert list(found["clip_id"]) == ["east", "far_east", "north", "west"]
    assert list(found["rank"]) == [1, 2, 3, 4] and set(found["query"]) == {"query"}
    assert found["similarity"].to_numpy() == pytest.approx(np.array([4, 4, 1, -4]) / 17**0.5)


def test_of_equal_clips_the_first_of_the_gallery_comes_first():
    gallery = pd.DataFrame(np.outer(np.arange(1, 8), [0.1, 0.2, 0.3]), index=list("cabgfed"))
    assert list(nearest(table(query=[1, 2, 3]), gallery, k=7)["clip_id"]) == list("cabgfed")


def test_a_clip_is_not_its_own_neighbour():
    found = nearest(GALLERY, GALLERY, k=3)
    assert (found["query"] != found["clip_id"]).all()
    assert found.groupby("query", sort=False)["clip_id"].first().to_dict()["east"] == "far_east"


def test_a_code_of_length_zero_is_similar_to_nothing():
    found = nearest(table(query=[0, 0]), GALLERY, k=4)
    assert (found["similarity"] == 0).all() and list(found["clip_id"]) == list(GALLERY.index)


def test_batches_change_nothing():
    generator = np.random.default_rng(0)
    codes = pd.DataFrame(generator.normal(size=(23, 4)), index=[f"clip{n}" for n in range(23)])
    pd.testing.assert_frame_equal(nearest(codes, codes, 5, batch_size=4), nearest(codes, codes, 5))


@pytest.mark.parametrize("k", [0, 5])
def test_a_k_beyond_the_gallery_is_refused(k):
    with pytest.raises(RetrievalError, match=f"k is {k}, a query has 4 clips"):
        nearest(table(query=[1, 0]), GALLERY, k)


def test_a_query_out_of_the_gallery_has_one_clip_fewer_to_choose_from():
    with pytest.raises(RetrievalError, match="a query has 3 clips"):
        nearest(GALLERY, GALLERY, k=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_are_not_finite_are_named(bad):
    with pytest.raises(RetrievalError, match="gallery: 1 clips have NaN.*'ill'"):
        nearest(table(query=[1, 0]), table(well=[1, 0], ill=[bad, 0]), k=1)


def test_repeated_ids_empty_tables_and_other_dimensions_are_refused():
    with pytest.raises(RetrievalError, match="queries: 1 clips are duplicated.*'query'"):
        nearest(pd.concat([table(query=[1, 0])] * 2), GALLERY, 1)
    with pytest.raises(RetrievalError, match="gallery: no clip"):
        nearest(table(query=[1, 0]), GALLERY.iloc[:0], 1)
    with pytest.raises(RetrievalError, match="queries of 3 dimensions do not fit a gallery of 2"):
        nearest(table(query=[1, 0, 0]), GALLERY, 1)


def test_precision_by_hand(chiral):
    codes, clips = chiral
    precision = retrieve(codes, clips, k=4).precision((1, 2, 4))
    assert list(precision["precision"]) == [100, 100, 50]
    assert list(precision["ceiling"]) == [100, 100, 50]
    assert precision["chance"].to_numpy() == pytest.approx(25) and (precision["queries"] == 4).all()
    assert (precision["low"] == precision["high"]).all()  # every query has the same


def test_the_negated_odd_code_finds_the_opposite_action(chiral):
    codes, clips = chiral
    assert (
        retrieve(codes, clips, 2, ask=-codes, opposite=True).precision((2,))["precision"].item()
        == 100
    )
    assert retrieve(codes, clips, 2, ask=-codes).precision((2,))["precision"].item() == 0


def test_the_interval_holds_the_precision_and_is_the_same_again(chiral):
    codes, clips = chiral
    codes.loc["door-0-2"] *= -1  # this query now finds the wrong sign
    results = retrieve(codes, clips, k=1)
    row = results.precision((1,)).iloc[0]
    assert row["precision"] == 75 and row["low"] < 75 < row["high"]
    pd.testing.assert_frame_equal(
        results.precision((1,)), retrieve(codes, clips, k=1).precision((1,))
    )


def test_clips_without_an_embedding_are_named_and_left_out(chiral):
    codes, clips = chiral
    results = retrieve(codes.drop(["door-0-0", "glass-1-2"]), clips, k=1)
    assert results.missing == ["door-0-0", "glass-1-2"] and results.gallery == 7
    assert len(results.neighbours) == 3 and results.relevant["door-0-2"] == 1
    assert "2 clips without an embedding, the first is 'door-0-0'" in repr(results)
    assert retrieve(codes, clips, k=1, ask=codes.drop("door-0-2")).missing == ["door-0-2"]


def test_a_query_without_a_right_clip_counts_as_a_miss(chiral):
    codes, clips = chiral
    results = retrieve(codes.drop(["door-0-0", "door-0-1"]), clips, k=1)
    assert results.precision((1,))[["precision", "ceiling"]].iloc[0].tolist() == [75, 75]


def test_embeddings_of_other_clips_are_refused(chiral):
    codes, clips = chiral
    with pytest.raises(RetrievalError, match="0 test and 0 training clips"):
        retrieve(codes.add_prefix("other-", axis=0), clips)


def test_a_table_that_is_not_chiral_is_refused(chiral):
    codes, clips = chiral
    with pytest.raises(RetrievalError, match="lacks the column group, chiral_label"):
        retrieve(codes, clips[["clip_id", "split"]])
    with pytest.raises(RetrievalError, match="chiral_label other than 0 or 1"):
        retrieve(codes, clips.replace({"chiral_label": {1: 2}}))
    with pytest.raises(RetrievalError, match="has clips twice"):
        retrieve(codes, pd.concat([clips, clips]))


def test_precision_at_more_neighbours_than_were_looked_for_is_refused(chiral):
    with pytest.raises(RetrievalError, match="precision at 5"):
        retrieve(*chiral, k=4).precision((1, 5))


def gallery_clips(rng, count=60):
    rows = {
        "clip_id": [f"c{n}" for n in range(count)],
        "path": "a.mp4",
        "split": "validation",
        "group": rng.choice(["door", "lid", "tap"], count),
        "chiral_label": rng.integers(0, 2, count),
    }
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seed", range(3))
def test_galleries_are_the_average_precision_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    clips = gallery_clips(rng)
    codes = pd.DataFrame(rng.normal(size=(60, 8)), index=clips["clip_id"])
    found = retrieve_from_galleries(codes, clips, bootstrap=10).set_index("gallery")
    cosine = cosine_similarity(codes)
    same_group = clips["group"].to_numpy()[:, None] == clips["group"].to_numpy()
    same_side = clips["chiral_label"].to_numpy()[:, None] == clips["chiral_label"].to_numpy()
    among = {"chiral": same_group, "static": same_side, "all": np.ones((60, 60), bool)}
    for gallery, searched in among.items():
        precisions, first = [], []
        for n in range(60):
            others = searched[n] & (np.arange(60) != n)
            right, scores = (same_group & same_side)[n, others], cosine[n, others]
            if right.any():
                precisions.append(average_precision_score(right, scores))
                first.append(right[scores.argmax()])
        assert found.loc[gallery, "mAP"] == pytest.approx(100 * np.mean(precisions))
        assert found.loc[gallery, "R@1"] == pytest.approx(100 * np.mean(first))
        assert found.loc[gallery, "queries"] == len(precisions)


def test_the_chance_of_a_gallery_is_the_mean_over_random_codes():
    clips = gallery_clips(np.random.default_rng(0))
    tables = []
    for seed in range(200):
        codes = np.random.default_rng(seed).normal(size=(60, 40))
        codes = pd.DataFrame(codes, index=clips["clip_id"])
        tables.append(retrieve_from_galleries(codes, clips, bootstrap=2).set_index("gallery"))
    mean = sum(table["mAP"] for table in tables) / len(tables)
    assert mean.to_numpy() == pytest.approx(tables[0]["chance"].to_numpy(), abs=1)


def test_galleries_count_the_clips_that_cannot_ask():
    clips = gallery_clips(np.random.default_rng(0))
    alone = clips.iloc[[0]].assign(clip_id="alone", group="jar")
    codes = np.random.default_rng(1).normal(size=(61, 4))
    clips = pd.concat([clips, alone], ignore_index=True)
    table = pd.DataFrame(codes, index=clips["clip_id"]).drop(index="c5")
    found = retrieve_from_galleries(table, clips, bootstrap=10)
    assert list(found["left_out"]) == [2, 2, 2]  # c5 has no embedding, the jar is alone


def test_galleries_need_two_clips_of_a_class():
    clips = gallery_clips(np.random.default_rng(0)).head(1)
    codes = pd.DataFrame(np.ones((1, 4)), index=clips["clip_id"])
    with pytest.raises(RetrievalError, match="no clip has another one of its class"):
        retrieve_from_galleries(codes, clips)
