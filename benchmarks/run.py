"""Speed and memory of the pipeline, as ratios to a plain reference in one run: `make bench`.

The reference is the first version that one would write, and much like the authors' release: decord
with its defaults, every frame through PIL and torchvision transforms, one clip after the other,
float32, eager, in one process, all kept in memory. Both sides get the same clips, which are
rendered here, in turn. Beside each ratio stands the share of
what this processor reaches in products of matrices, in the precision that ours computes in.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import torch  # isort: skip  # decord crashes with CUDA where it is imported first

import decord
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from lift.acceleration import keep_freed_memory
from lift.backbones import Backbone, create_backbone
from lift.costs import architecture_cost
from lift.data.clips import read_clips
from lift.data.synthetic import synthesise
from lift.equivariant import EquivariantCode
from lift.extraction import decode_items, extract, work_items
from lift.figures import benchmark_ratios, save_figure, set_style
from lift.model import LiFT, LiFTConfig, LineEncoder
from lift.probes import probe_groups
from lift.store import FeatureStore
from lift.tables import provenance, save_json, save_table
from lift.training import LiFTModule, TrainingConfig, fit, split_ids
from lift.video import sample_indices

FRAMES = 16
CLIPS = {"efficientnet_lite0": 128, "dinov2_vits14_reg": 32}  # the start of processes is a part


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def usual_memory() -> None:
    """Let glibc return memory as it does by default after some time (its largest thresholds)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-1, 64 * 2**20)
        libc.mallopt(-3, 32 * 2**20)


def in_turn(
    reference: Callable[[], object], ours: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Median wall times of both, in turn, after one warm-up call; memory as each would have it."""
    times = []
    for _ in range(repeats + 1):
        usual_memory()
        plain = seconds(reference)
        keep_freed_memory()
        times.append((plain, seconds(ours)))
    return tuple(float(np.median(column)) for column in zip(*times[1:], strict=True))


def processor() -> str:
    """The processor's own name for itself, and its cores."""
    found = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    bf16 = "with" if torch.cpu._is_avx512_bf16_supported() else "without"
    return f"{found[0] if found else 'unknown'}, {os.cpu_count()} cores, {bf16} bfloat16"


def peak(precision: torch.dtype, side: int = 2048) -> float:
    """GFLOP/s of products of square matrices of random numbers, the best of five."""
    a = torch.randn(side, side).to(precision)
    return 2 * side**3 / min(seconds(lambda: a @ a) for _ in range(6)) / 1e9


def gflops(work: Callable[[], object]) -> float:
    """Counted GFLOPs of a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def reference_transform(preprocessing: dict, size: int) -> Callable[[Image.Image], torch.Tensor]:
    """PIL and torchvision: resize, centre crop, tensor, normalise."""
    bicubic = transforms.InterpolationMode.BICUBIC
    resize = transforms.Resize(round(size * 256 / 224), interpolation=bicubic)
    normalise = transforms.Normalize(preprocessing["mean"], preprocessing["std"])
    steps = [resize, transforms.CenterCrop(size), transforms.ToTensor(), normalise]
    return transforms.Compose(steps)


def reference_clip(path: str, transform: Callable) -> torch.Tensor:
    """The frames of a clip one at a time: `(T, 3, S, S)` float32."""
    reader = decord.VideoReader(path)
    frames = reader.get_batch(sample_indices(len(reader), FRAMES)).asnumpy()  # (T, H, W, 3)
    return torch.stack([transform(Image.fromarray(frame)) for frame in frames])


def clip_table(paths: list[str]) -> pd.DataFrame:
    """A clip table of whole files."""
    return pd.DataFrame({"clip_id": paths, "path": paths, "start": np.nan, "end": np.nan})


@torch.inference_mode()
def reference_extract(
    paths: list[str], transform: Callable, network: torch.nn.Module
) -> torch.Tensor:
    """Features of every clip, one clip after the other: `(N, T, D)`."""
    return torch.stack([network(reference_clip(path, transform)) for path in paths])


def decoding(paths: list[str], backbone: Backbone, repeats: int) -> tuple[float, float]:
    """Decoding with preprocessing: one process, against the two of `extract`."""
    transform = reference_transform(backbone.description["preprocessing"], backbone.input_size)
    items = work_items(clip_table(paths), None)

    def ours() -> None:
        for _ in decode_items(items, backbone.transform, FRAMES):
            pass

    return in_turn(lambda: [reference_clip(path, transform) for path in paths], ours, repeats)


def plain_and_ours(name: str, weights: str | None) -> tuple[Backbone, Backbone]:
    """The network as timm makes it, in float32, and as `lift` uses it here; compiled in float32."""
    plain = create_backbone(name, weights, "cpu", precision="float32", fast=False)
    ours = create_backbone(name, weights, "cpu")
    if ours.precision == torch.float32:
        ours = create_backbone(name, weights, "cpu", precision="float32", compile=True)
    return plain, ours


def extraction(
    paths: list[str], name: str, weights: str | None, repeats: int
) -> tuple[float, float, str, float]:
    """From files to features: both times, what was compared, and the share of the peak (%)."""
    plain, backbone = plain_and_ours(name, weights)
    transform = reference_transform(plain.description["preprocessing"], plain.input_size)
    table, kept = clip_table(paths), {}

    def reference() -> None:
        kept["reference"] = reference_extract(paths, transform, plain.network)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract(table, Path(folder) / "store", backbone, FRAMES, progress=False)
            kept["ours"] = FeatureStore.open(Path(folder) / "store").read(paths)

    times = in_turn(reference, ours, repeats)
    cosine = torch.nn.functional.cosine_similarity(kept["reference"], kept["ours"], dim=-1).min()
    precision = str(backbone.precision).removeprefix("torch.")
    work = len(paths) * architecture_cost(name)["gflops"]
    share = 100 * work / times[1] / peak(backbone.precision)
    return (*times, f"{precision}, cosine of features at least {cosine:.5f}", share)


class PlainEncoder(LineEncoder):
    """LiFT's encoder by torch's transformer alone: all tokens in all layers, torch's dropout."""

    def __init__(self, config: LiFTConfig):
        super().__init__(config)
        for layer in self.transformer.layers:
            for name in ("dropout", "dropout1", "dropout2"):
                setattr(layer, name, torch.nn.Dropout(config.dropout))

    def code_tokens(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, T, D)` to static and dynamic tokens, both `(B, d)`."""
        static, dynamic, _ = self(x)
        return static, dynamic


class PlainLiFT(LiFT):
    """LiFT as the paper describes it, without a shortcut."""

    make_encoder = PlainEncoder


@torch.inference_mode()
def embedding(repeats: int) -> tuple[float, float]:
    """512 clips through LiFT: one full forward pass per clip, against codes alone in batches."""
    plain, model = PlainLiFT(LiFTConfig()).eval(), LiFT(LiFTConfig()).eval()
    features = torch.randn(512, FRAMES, 384)

    def reference() -> None:
        for clip in features:
            output = plain(clip[None])
            torch.cat([output.static, output.dynamic], dim=-1)

    return in_turn(reference, lambda: [model.embed(batch) for batch in features.split(64)], repeats)


@torch.inference_mode()
def equivariant(repeats: int) -> tuple[float, float]:
    """512 clips through LiFT and through the equivariant code of the same features, in batches."""
    features = torch.randn(512, FRAMES, 384).split(64)
    lift, code = LiFT(LiFTConfig()).eval(), EquivariantCode().fit_batches(features)

    def embed(model: LiFT | EquivariantCode) -> list[torch.Tensor]:
        return [model.embed(x) for x in features]

    return in_turn(partial(embed, lift), partial(embed, code), repeats)


def lift_loss(module: LiFTModule, batch: torch.Tensor) -> torch.Tensor:
    """The loss of clips `(B, T, D)`, without a trainer."""
    out = module.model(batch)
    return module.loss(out.reconstruction, batch, out.static, out.dynamic, out.latents)["loss"]


def random_store(folder: Path, clips: int) -> FeatureStore:
    """A store of random numbers."""
    store = FeatureStore.create(folder / "store", {"name": "random numbers"}, FRAMES, 384)
    store.append([str(n) for n in range(clips)], torch.randn(clips, FRAMES, 384))
    return store


def training(repeats: int, clips: int = 4096) -> tuple[float, float, float]:
    """An epoch of LiFT: clip by clip in float32, against `fit`; and the share of the peak (%)."""
    bf16 = torch.cpu._is_avx512_bf16_supported()
    recipe = TrainingConfig(precision="bf16-mixed" if bf16 else "32-true")
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder), clips)
        train, _ = split_ids(store.ids, recipe.validation_fraction, 0)
        module = LiFTModule(PlainLiFT(LiFTConfig()), recipe)
        rate, decay = recipe.learning_rate, recipe.weight_decay
        optimiser = torch.optim.Adam(module.parameters(), lr=rate, weight_decay=decay)
        epochs = count(1)  # `fit` goes on where it was

        def reference() -> None:
            files = [store.read([clip])[0] for clip in train]  # one clip at a time
            for batch in DataLoader(files, recipe.batch_size, shuffle=True):
                optimiser.zero_grad()
                lift_loss(module, batch).backward()
                optimiser.step()

        def ours() -> None:
            more = replace(recipe, epochs=next(epochs))
            fit(store, LiFTConfig(), more, Path(folder, "m"), progress=False)

        plain, taken = in_turn(reference, ours, repeats)
        x = torch.randn(recipe.batch_size, FRAMES, 384)
        used = LiFTModule(LiFT(LiFTConfig()), recipe)
        work = len(train) / len(x) * gflops(lambda: lift_loss(used, x).backward())
    share = 100 * work / taken / peak(torch.bfloat16 if bf16 else torch.float32)
    return plain, taken, share


def probing(groups: int = 110, clips: int = 80, dim: int = 768, draws: int = 1000) -> tuple:
    """Groups under a bootstrap: fits of scikit-learn for each draw, against `probe_groups`.

    The loop is timed on one draw and counted `draws` times. The predictions are compared.
    """
    rng, rows = np.random.default_rng(0), groups * clips
    sides = np.tile(["train", "train", "test", "test"], rows // 4)
    table = pd.DataFrame({"clip_id": [str(n) for n in range(rows)], "split": sides})
    table["group"] = np.repeat([f"group {g:03d}" for g in range(groups)], clips)
    table["chiral_label"] = np.tile([0, 1], rows // 2)
    x = rng.normal(size=(rows, dim)).astype("float32")
    x[:, 0] += table["chiral_label"]
    embeddings, found = pd.DataFrame(x, index=table["clip_id"]), {}

    def loop() -> None:
        for _, part in table.groupby("group"):
            train, held = part[part["split"] == "train"], part[part["split"] == "test"]
            model = RidgeClassifier().fit(embeddings.loc[train["clip_id"]], train["chiral_label"])
            answers = model.predict(embeddings.loc[held["clip_id"]])
            found.update(zip(held["clip_id"], answers == held["chiral_label"], strict=True))

    one = seconds(loop)
    started = time.perf_counter()
    results = probe_groups(embeddings, table, bootstrap=draws)
    taken = time.perf_counter() - started
    ours = results.predictions.set_index("clip_id")["correct"].to_dict()
    return one, draws * one, taken, sum(found[clip] == ours[clip] for clip in found) / len(found)


MEMORY_SCRIPT = """
import json, re, sys
import numpy as np, pandas as pd
from lift.backbones import create_backbone
from lift.extraction import decode_items, extract, work_items
paths, clips = json.load(open(sys.argv[1])), int(sys.argv[2])
ids, files = map(str, range(clips)), (paths[n % len(paths)] for n in range(clips))
table = pd.DataFrame({"clip_id": ids, "path": files})
table = table.assign(start=np.nan, end=np.nan)
extract(table, sys.argv[3], create_backbone("efficientnet_lite0", device="cpu"), progress=False)
# not getrusage: its value survives exec and could be the peak of the parent process
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


def memory(paths: list[str], clips: int) -> float:
    """Peak memory (MiB) of a process that extracts `clips` clips with EfficientNet-Lite0 (Linux).

    Not compiled: the export to ONNX Runtime needs more memory than extraction, and would hide it.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "paths.json").write_text(json.dumps(paths))
        arguments = [f"{folder}/paths.json", str(clips), f"{folder}/store"]
        command = [sys.executable, "-c", MEMORY_SCRIPT, *arguments]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(
    task: str, reference: float, ours: float, unit: str, note: str = "", share: float = np.nan
) -> dict:
    """One line of the table: how many times better ours is."""
    ratio, times = reference / ours, f"{reference:.3g} against {ours:.3g} {unit}"
    print(f"{task}: {ratio:.2f} x ({times}) {note} {share:.0f} % of the peak", flush=True)
    numbers = {"task": task, "ratio": ratio, "reference": reference, "ours": ours}
    at_peak = 100 * ratio / share  # what the ratio would be if ours were products at full rate
    return numbers | {"unit": unit, "share of peak (%)": share, "at peak": at_peak, "note": note}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder for benchmark.*")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clips", type=int, default=12, help="clips to render per class")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        synthesise(Path(folder), arguments.clips, test_clips=1, workers=2)
        clips = read_clips(Path(folder) / "clips.csv")
        paths = [str(Path(folder) / path) for path in clips["path"]]
        lite = create_backbone("efficientnet_lite0", device="cpu")
        times = decoding(paths, lite, arguments.repeats)
        rows.append(row("decoding and preprocessing", *times, "s"))
        for name, label, weights in (
            ("efficientnet_lite0", "extraction, EfficientNet-Lite0", None),
            ("dinov2_vits14_reg", "extraction, ViT-S/14 (random weights)", "random"),
        ):
            some = paths[: CLIPS[name]]
            reference, ours, note, share = extraction(some, name, weights, arguments.repeats)
            rows.append(row(label, reference, ours, "s", note, share))
        rows.append(row("LiFT embedding, codes alone", *embedding(arguments.repeats), "s"))
        plain, fitted, share = training(arguments.repeats)
        rows.append(
            row("LiFT training, one epoch", plain, fitted, "s", "4,096 random clips", share)
        )
        one, loop, probed, same = probing()
        note = f"{100 * same:.2f} % of the predictions are equal"
        rows.append(row("probes of 110 groups, 1,000 draws", loop, probed, "s", note))
        rows.append(row("probes of 110 groups, one fit each", one, probed, "s", "with 1,000 draws"))
        rows.append(row("equivariant code", *equivariant(arguments.repeats), "s", "against LiFT"))
        few, many = memory(paths, 100), memory(paths, 1000)
        rows.append(row("memory, 100 clips against 1,000", few, many, "MiB"))
    table = pd.DataFrame(rows)
    medians = f"medians of {arguments.repeats} runs in turn on {len(paths)} rendered clips "
    medians += "({} of them through EfficientNet, {} through the ViT)".format(*CLIPS.values())
    peaks = " and ".join(
        f"{peak(getattr(torch, name)):.0f} GFLOP/s in {name}" for name in ("float32", "bfloat16")
    )
    caption = (
        f"Speed and memory against a plain reference, {medians}. {processor()}: products of "
        f"matrices reach {peaks}; shares are of these. `at peak` is the ratio at a share of 100 %."
    )
    digits = {"ratio": 2, "reference": 2, "ours": 2, "share of peak (%)": 0, "at peak": 2}
    # processors of both kinds have their own table: their goals differ
    name = "benchmark" if torch.cpu._is_avx512_bf16_supported() else "benchmark_float32"
    save_table(table, arguments.out, name, caption, digits)
    set_style()
    save_figure(benchmark_ratios(table), arguments.out, f"{name}_ratios", caption=caption)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")  # JSON has no NaN
    save_json({"rows": rows, "provenance": provenance("benchmark", 0)}, arguments.out, name)


if __name__ == "__main__":
    main()
