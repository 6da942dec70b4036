"""What bfloat16 costs in accuracy: the same clips in float32 and in bfloat16, scored alike.

Give it the clip table of a chiral benchmark, such as that of `make reproduce`:
`python benchmarks/precision.py runs/demo/synthetic/clips.csv`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from lift.backbones import create_backbone
from lift.data.clips import read_clips
from lift.embedding import embed_store
from lift.equivariant import EquivariantCode
from lift.extraction import extract
from lift.model import LiFT
from lift.probes import GroupResults, compare_groups, probe_groups
from lift.store import FeatureStore
from lift.tables import provenance, save_json, save_table

PRECISIONS = ("float32", "bfloat16")


def extracted(table: Path, clips: pd.DataFrame, folder: Path, backbone: str) -> FeatureStore:
    """The features of the clips in one precision; the folder's name says which."""
    network = create_backbone(backbone, precision=folder.name)
    report = extract(clips, folder, network, workers=1, video_root=table.parent)
    if report.failed:
        raise SystemExit(
            f"{len(report.failed)} clips failed, the first: {next(iter(report.failed))}"
        )
    return FeatureStore.open(folder)


def least_cosine(stores: list[FeatureStore], ids: list[str]) -> float:
    """The least cosine of a frame's features in the two precisions."""
    least = 1.0
    for start in range(0, len(ids), 256):
        a, b = (store.read(ids[start : start + 256]).float() for store in stores)  # (B, T, D)
        cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))  # (B, T)
        least = min(least, float(cosine.min()))
    return least


def scored(
    store: FeatureStore, method: str, model: LiFT | EquivariantCode | None, clips: pd.DataFrame
) -> GroupResults:
    """Chiral accuracy of one embedding of a store."""
    codes = embed_store(store, method, model, clips["clip_id"])  # (N, E)
    return probe_groups(pd.DataFrame(codes, index=clips["clip_id"]), clips)


def compared(stores: list[FeatureStore], clips: pd.DataFrame) -> pd.DataFrame:
    """One row per embedding: its accuracy in both precisions, and their paired difference."""
    train = clips.loc[clips["split"] == "train", "clip_id"]
    code = EquivariantCode().fit_batches(stores[0].read(list(train)).float().split(256))
    methods = {"unit_slope": None, "unit_last_minus_first": None, "concatenation": None}
    methods |= {"lift": code, "lift_dynamic": code}
    rows = []
    for method, model in methods.items():
        found = [scored(store, method, model, clips) for store in stores]
        row = {"embedding": method if model is None else f"equivariant, {method}"}
        row |= {p: one.summary()["mean"] for p, one in zip(PRECISIONS, found, strict=True)}
        moved = compare_groups(found[1], found[0])
        rows.append(row | {name: moved[name] for name in ("difference", "low", "high")})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure and write `benchmark_precision.*`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, help="clip table; its paths are relative to it")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the result")
    arguments = parser.parse_args()
    clips = read_clips(arguments.clips)
    with tempfile.TemporaryDirectory() as folder:
        stores = [
            extracted(arguments.clips, clips, Path(folder, precision), arguments.backbone)
            for precision in PRECISIONS
        ]
        cosine, table = least_cosine(stores, list(clips["clip_id"])), compared(stores, clips)
    caption = (
        f"Chiral accuracy (%) of features in float32 and in bfloat16, {arguments.backbone}, "
        f"{len(clips)} clips; difference in points with its 95 % interval, paired by clip. The "
        f"least cosine of a frame's features in both is {np.floor(1e5 * cosine) / 1e5:.5f}."
    )
    save_table(table, arguments.out, "benchmark_precision", caption)
    numbers = {"rows": table.to_dict("records"), "least_cosine": cosine}
    numbers |= {"provenance": provenance("benchmark", 0)}
    save_json(numbers, arguments.out, "benchmark_precision")


if __name__ == "__main__":
    main()
