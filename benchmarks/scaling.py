"""Time and memory from 100 to 240,000 clips (Kinetics-400), on random numbers: a straight line?

A store of 240,000 clips is opened; a training step and the closed form read it batch by batch;
probes are fitted to at most `--probe-clips` clips of it; extraction runs on a decoder and a
backbone that are stand-ins and make random numbers, so that only the pipeline is measured.
Each row is a process of its own, whose peak memory is that of the operating system.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COUNTS = (100, 1_000, 10_000, 240_000)
FRAMES, DIM = 4, 32  # small, so that a store of 240,000 clips takes 60 MB
SHARD = 256  # clips per shard


def names(clips: int) -> list[str]:
    """Ids of clips."""
    return [f"clip-{number:07d}" for number in range(clips)]


def make_store(path: Path, clips: int) -> None:
    """A store of random numbers, in shards of `SHARD` clips."""
    import torch

    import lift.io
    from lift.store import ClipSource, FeatureStore

    lift.io._flush = lambda path: None  # nobody needs it after a power failure
    header = {"name": "random numbers", "weights_hash": "0"}
    store, ids = FeatureStore.create(path, header, FRAMES, DIM), names(clips)
    for start in range(0, clips, SHARD):
        some = ids[start : start + SHARD]
        sources = [ClipSource(f"{clip_id}.mp4", size=1, modified=1) for clip_id in some]
        store.append(some, torch.randn(len(some), FRAMES, DIM), sources)
    store.sum_up()  # as `extract` ends


def opened(path: Path, clips: int, limit: int) -> Callable[[], object]:
    """Open a store."""
    from lift.store import FeatureStore

    return lambda: FeatureStore.open(path)


def training_step(path: Path, clips: int, limit: int) -> Callable[[], object]:
    """One step on 128 clips from anywhere in the store."""
    import torch

    from lift.model import LiFT, LiFTConfig
    from lift.store import FeatureStore

    store, model = FeatureStore.open(path), LiFT(LiFTConfig(DIM, 64, 2, 4))
    ids, order = names(clips), torch.randperm(clips, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        x = store.read([ids[place] for place in order[:128].tolist()])  # (B, T, D)
        (model(x).reconstruction - x).square().mean().backward()

    return step


def closed_form(path: Path, clips: int, limit: int) -> Callable[[], object]:
    """The equivariant code of all clips, one batch in memory at a time."""
    from lift.equivariant import fit_store
    from lift.store import FeatureStore

    store = FeatureStore.open(path)
    return lambda: fit_store(store, store.ids).code_dims


def probing(path: Path, clips: int, limit: int) -> Callable[[], object]:
    """A ridge probe on the means of at most `limit` training clips, drawn by the seed."""
    import torch
    from sklearn.linear_model import RidgeClassifier

    from lift.store import FeatureStore
    from lift.training import draw_ids

    store = FeatureStore.open(path)

    def fit() -> None:
        ids = draw_ids(store.ids, min(limit, clips), seed=0)
        means = torch.cat([x.mean(1) for x in store.batches(ids)]).numpy()  # (N, D)
        RidgeClassifier().fit(means, (means[:, 0] > 0).astype(int))

    return fit


def extraction(path: Path, clips: int, limit: int) -> Callable[[], object]:
    """The whole pipeline of `extract`, with stand-ins for the decoder and the backbone."""
    import numpy as np
    import pandas as pd
    import torch

    import lift.io
    from lift import extraction as module

    lift.io._flush = lambda path: None

    class StandIn(torch.nn.Module):
        dim, description, transform = DIM, {"name": "stand-in", "weights_hash": "0"}, None

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.randn(*frames.shape[:2], DIM)  # (B, T, D)

    def stand_in(items: list, *_: object) -> object:
        frames = np.zeros((FRAMES, 3, 8, 8), np.uint8)
        return ([(clip[0], frames) for clip in item.clips] for item in items)

    module.decode_items = stand_in
    ids = names(clips)
    table = pd.DataFrame({"clip_id": ids, "path": ids, "start": np.nan, "end": np.nan})
    options = {"progress": False, "shard_seconds": 1e9, "shard_clips": SHARD}
    return lambda: module.extract(table, path.with_name("made"), StandIn(), FRAMES, **options)


TASKS = {
    "opening a store": opened,
    "training step, 128 clips": training_step,
    "closed form, all clips": closed_form,
    "probing": probing,
    "extraction, stand-ins": extraction,
}


def measure(task: str, path: Path, clips: int, limit: int) -> dict[str, float]:
    """Processor and wall time of a task, and what it adds to the peak of memory."""
    work = TASKS[task](path, clips, limit)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    work()
    seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    return seconds | {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def rows(clips: int, limit: int) -> list[dict[str, object]]:
    """Every task at a number of clips, each in a process of its own."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        # this process stays small: a child's peak of memory starts at its parent's
        for task in ("make", *TASKS):
            command = [sys.executable, __file__, "--task", task, "--store", f"{folder}/store"]
            command += ["--clips", str(clips), "--probe-clips", str(limit)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            if task == "make":
                continue
            found.append({"task": task, "clips": clips, **json.loads(said)})
            print(found[-1], flush=True)
    return found


def save(found: list[dict[str, object]], folder: Path, limit: int) -> None:
    """Write the table, the same as JSON, and where the numbers came from.

    Earlier rows of other numbers of clips stay.
    """
    import pandas as pd

    from lift.tables import provenance, save_json, save_table

    earlier = folder / "benchmark_scaling.json"
    kept = json.loads(earlier.read_text())["rows"] if earlier.exists() else []
    again = {row["clips"] for row in found}
    found = sorted(
        [*found, *(row for row in kept if row["clips"] not in again)],
        key=lambda row: ([*TASKS].index(row["task"]), row["clips"]),
    )
    table = pd.DataFrame(found).rename(
        columns={"wall": "wall s", "processor": "processor s", "mib": "added MiB"}
    )
    caption = (
        f"Cost by number of clips, on a store of random numbers ({FRAMES} frames of {DIM} "
        f"dimensions); probes take at most {limit} clips; `added MiB` is what the work adds to "
        "the peak of its process. The host was shared: processor time is the safer."
    )
    digits = {"wall s": 3, "processor s": 3, "added MiB": 0}
    save_table(table, folder, "benchmark_scaling", caption, digits)
    save_json({**provenance("bench", 0), "rows": found}, folder, "benchmark_scaling")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--probe-clips", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--task", choices=["make", *TASKS])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--clips", type=int)
    chosen = parser.parse_args()
    if chosen.task == "make":
        make_store(chosen.store, chosen.clips)
    elif chosen.task:
        print(json.dumps(measure(chosen.task, chosen.store, chosen.clips, chosen.probe_clips)))
    else:
        for clips in chosen.counts:
            save(rows(clips, chosen.probe_clips), chosen.out, chosen.probe_clips)
