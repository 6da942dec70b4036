"""What speed costs in accuracy: the same clips by the plain network and as `lift` computes it.

Plain is float32, as timm makes the network. Ours is the precision that `lift` chooses on this
machine, and a network in float32 is compiled. Give it the clip table of a chiral benchmark:
`python benchmarks/precision.py runs/demo/synthetic/clips.csv`. With `--emulate`, a processor
without bfloat16 computes what one with bfloat16 would, several times more slowly.
"""

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from run import plain_and_ours, processor

from lift.backbones import Backbone
from lift.data.clips import read_clips
from lift.embedding import embed_store
from lift.equivariant import EquivariantCode
from lift.extraction import extract
from lift.model import LiFT
from lift.probes import GroupResults, compare_groups, probe_groups
from lift.store import FeatureStore
from lift.tables import provenance, save_json, save_table

ENCODERS = {"efficientnet_lite0": None, "dinov2_vits14_reg": "random"}  # with their weights


def extracted(network: Backbone, table: Path, clips: pd.DataFrame, folder: Path) -> FeatureStore:
    """The features of the clips."""
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
    """One row per embedding: its accuracy by both networks, and their paired difference."""
    train = clips.loc[clips["split"] == "train", "clip_id"]
    code = EquivariantCode().fit_batches(stores[0].read(list(train)).float().split(256))
    methods = {"unit_slope": None, "unit_last_minus_first": None, "concatenation": None}
    methods |= {"lift": code, "lift_dynamic": code}
    rows = []
    for method, model in methods.items():
        found = [scored(store, method, model, clips) for store in stores]
        row = {"embedding": method if model is None else f"equivariant, {method}"}
        row |= {n: one.summary()["mean"] for n, one in zip(("plain", "ours"), found, strict=True)}
        moved = compare_groups(found[1], found[0])
        rows.append(row | {name: moved[name] for name in ("difference", "low", "high")})
    return pd.DataFrame(rows)


def of_encoder(name: str, table: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """The rows of one encoder."""
    networks = plain_and_ours(name, ENCODERS[name])
    with tempfile.TemporaryDirectory() as folder:
        stores = [
            extracted(network, table, clips, Path(folder, str(number)))
            for number, network in enumerate(networks)
        ]
        rows = compared(stores, clips)
        cosine = least_cosine(stores, list(clips["clip_id"]))
    precision = str(networks[1].precision).removeprefix("torch.")
    rows.insert(0, "encoder", name + (" (random weights)" if ENCODERS[name] else ""))
    return rows.assign(
        precision=precision, clips=len(clips), least_cosine=np.floor(1e5 * cosine) / 1e5
    )


def main() -> None:
    """Measure and write `benchmark_precision.*`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, help="clip table; its paths are relative to it")
    parser.add_argument("--groups", type=int, default=2, help="chiral groups to take, in order")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the result")
    parser.add_argument("--emulate", action="store_true", help="bfloat16 where it is not there")
    arguments = parser.parse_args()
    machine = processor() + (", emulated" if arguments.emulate else "")
    clips = read_clips(arguments.clips)
    groups = clips["group"].unique()[: arguments.groups]
    clips = clips[clips["group"].isin(groups)].reset_index(drop=True)
    as_if = patch("torch.cpu._is_avx512_bf16_supported", return_value=True)
    with as_if if arguments.emulate else nullcontext():
        tables = [of_encoder(name, arguments.clips, clips) for name in ENCODERS]
    table = pd.concat(tables, ignore_index=True)
    caption = (
        "Chiral accuracy (%) of features by the plain network in float32 and as `lift` computes "
        f"them ({machine}), groups {', '.join(groups)}; difference in points with its "
        "95 % interval, paired by clip. `least_cosine`: of a frame's features in both."
    )
    save_table(table, arguments.out, "benchmark_precision", caption, {"least_cosine": 5})
    numbers = {"rows": table.to_dict("records"), "provenance": provenance("benchmark", 0)}
    save_json(numbers, arguments.out, "benchmark_precision")


if __name__ == "__main__":
    main()
