"""A GPU: encoders of real size with random weights, training, and decoding that keeps it fed.

`python benchmarks/gpu.py` takes about four minutes and writes figures/gpu.md with the card's name.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from run import lift_loss
from sklearn.datasets import load_sample_image
from torch.nn.functional import cosine_similarity

from lift.backbones import create_backbone
from lift.classifiers import AttentiveProbe
from lift.costs import architecture_cost
from lift.extraction import decode_items, extract, work_items
from lift.io import write_text
from lift.model import LiFT, LiFTConfig
from lift.store import FeatureStore
from lift.tables import markdown_table, provenance, save_json
from lift.training import LiFTModule, TrainingConfig, fit
from lift.video import write_video

NAMES = ["vjepa2_large_256", "videomae_large", "dinov2_vitl14_reg"]
K400 = 240_000  # training clips of Kinetics-400
NOTES = {
    "pipeline": "From files to features: 16 frames of clips of 10 s, 340 x 256 pixels, H.264, as "
    "Kinetics has them. Hours for K400: 240,000 clips at the measured rate.",
    "training": "Steps on features that lie on the GPU, and `fit` from a store on disk.",
    "encoders": "Batches of random frames, the copy to the GPU included. GFLOPs are counted. Least "
    "cosine: the features against those of float32.",
}


def parser() -> argparse.ArgumentParser:
    """The options of this script."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--names", nargs="+", default=NAMES, help="rows of lift doctor")
    options.add_argument("--device", default="cuda", help="cpu tries the script itself, slowly")
    options.add_argument("--clips", type=int, default=8, help="clips per batch")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--files", type=int, default=512, help="videos to decode and extract")
    options.add_argument("--size", type=int, default=8192, help="side of the matrices of the peak")
    options.add_argument("--out", type=Path, default=Path("figures"))
    return options


def card(device: str) -> str:
    """The name of the device."""
    return torch.cuda.get_device_name() if device == "cuda" else f"no GPU: {device}"


def median_seconds(work: Callable[[], torch.Tensor], rounds: int) -> float:
    """Median seconds of a call that ends with a tensor; the copy to the CPU waits for the GPU."""
    taken = []
    work().cpu()  # warms up
    for _ in range(rounds):
        started = time.perf_counter()
        work().cpu()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[len(taken) // 2]


def peak(device: str, precision: str, size: int) -> float:
    """TFLOP/s of the product of two square matrices of random numbers."""
    a, b = torch.randn(2, size, size, device=device, dtype=getattr(torch, precision))

    def products() -> torch.Tensor:
        for _ in range(10):
            c = a @ b
        return c[0, 0]

    return 10 * 2 * size**3 / median_seconds(products, 3) / 1e12


def encoder_rows(name: str, options: argparse.Namespace, peaks: dict) -> Iterator[dict]:
    """An encoder in float32 and in bfloat16, on the same frames."""
    first, gflops = None, architecture_cost(name)["gflops"]
    for precision in ("float32", "bfloat16"):
        backbone = create_backbone(name, "random", options.device, precision)
        frames, size = backbone.frames or 16, backbone.input_size
        generator = torch.Generator().manual_seed(0)
        shape = (options.clips, frames, 3, size, size)
        batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        features = backbone(batch).cpu()
        taken = median_seconds(lambda: backbone(batch), options.rounds)  # noqa: B023
        gib = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else None
        first = features if first is None else first
        rate = gflops * options.clips / taken / 1000  # TFLOP/s
        yield {
            "encoder": name, "precision": precision, "frames": frames, "GFLOPs per clip": gflops,
            "clips/s": options.clips / taken, "TFLOP/s": rate,
            "share of peak (%)": 100 * rate / peaks[precision], "memory (GiB)": gib,
            "least cosine to float32": float(cosine_similarity(first, features, dim=-1).min()),
        }  # fmt: skip


def probe_row(device: str, tokens: int, dim: int) -> dict:
    """A training step of V-JEPA 2's probe on 16 clips of random tokens."""
    x = torch.randn(16, tokens, dim, generator=torch.Generator().manual_seed(0))
    labels = [str(n % 2) for n in range(16)]
    steps = 20
    probe = AttentiveProbe(batch_size=16, epochs=1, min_steps=steps, device=device)
    probe.fit(x[:, :8], labels)  # warms up
    started = time.perf_counter()
    probe.fit(x, labels)
    taken = (time.perf_counter() - started) / steps
    what = f"attentive probe, 16 clips of {tokens} tokens of {dim}"
    return {"training": what, "ms per step": 1000 * taken, "clips/s": 16 / taken}


def step_seconds(device: str, precision: str, mode: str | None, batch: int, frames: int) -> float:
    """Seconds of a training step of the paper's LiFT, the mean of 20; `mode` of `torch.compile`."""
    torch.manual_seed(0)
    module = LiFTModule(LiFT(LiFTConfig()), TrainingConfig()).to(device)
    optimiser = torch.optim.Adam(module.parameters(), 1e-4)
    loss_of = partial(lift_loss, module)
    loss_of = loss_of if mode is None else torch.compile(loss_of, mode=mode)
    x = torch.randn(batch, frames, module.model.config.feature_dim, device=device)

    def steps() -> torch.Tensor:
        for _ in range(20):
            optimiser.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = loss_of(x)
            loss.backward()
            optimiser.step()
        return loss.detach()

    return median_seconds(steps, 3) / 20


def step_rows(device: str, batch: int = 128, frames: int = 16) -> Iterator[dict]:
    """A training step of the paper's LiFT: as written, compiled, and replayed as a CUDA graph."""
    modes = {"eager": None, "compiled": "default", "compiled, CUDA graphs": "reduce-overhead"}
    for precision in ("float32", "bfloat16"):
        for mode, setting in modes.items() if device == "cuda" else [("eager", None)]:
            taken = step_seconds(device, precision, setting, batch, frames)
            what = f"LiFT, batches of {batch}, {precision}, {mode}"
            yield {"training": what, "ms per step": 1000 * taken, "clips/s": batch / taken}


def fit_row(device: str, folder: Path, clips: int = 4096) -> dict:
    """`fit` on a store of random numbers, from files to a saved model, after its first epoch."""
    store = FeatureStore.create(folder / "random", {"name": "random numbers"}, 16, 384)
    ids = [str(n) for n in range(clips)]
    for part in range(0, clips, 1024):
        some = ids[part : part + 1024]
        store.append(some, torch.randn(len(some), 16, 384))
    taken = []
    for epochs in (1, 5):
        started = time.perf_counter()
        recipe = TrainingConfig(epochs=epochs, precision="bf16-mixed")
        fit(store, LiFTConfig(), recipe, folder / "fitted", progress=False)
        taken.append(time.perf_counter() - started)
    rate = 4 * clips / taken[1]  # the second call continues after the first epoch
    what = f"`fit` on {clips} clips, 4 epochs with their validation and checkpoints"
    return {"training": what, "ms per step": 128e3 / rate, "clips/s": rate}


def training_rows(device: str, folder: Path, probed: tuple) -> Iterator[dict]:
    """The probe of tokens, steps of LiFT, and a whole training."""
    yield probe_row(*probed)
    yield from step_rows(device)
    yield fit_row(device, folder)


def make_videos(folder: Path, count: int, seconds: float = 10.0) -> pd.DataFrame:
    """Clips as long and as large as those of Kinetics: a window that moves over a photograph.

    The same file under many names: each is decoded for itself.
    """
    photo, places = (
        load_sample_image("china.jpg"),
        np.linspace(0, 80, int(30 * seconds)).astype(int),
    )
    frames = np.stack([photo[place : place + 256, 2 * place : 2 * place + 340] for place in places])
    write_video(folder / "clip.mp4", frames, frames_per_second=30)
    names = [f"{n}.mp4" for n in range(count)]
    for name in names:
        os.link(folder / "clip.mp4", folder / name)
    return pd.DataFrame({"clip_id": names, "path": names, "start": np.nan, "end": np.nan})


def pipeline_rows(options: argparse.Namespace, folder: Path, peaks: dict) -> Iterator[dict]:
    """Decoding alone, preprocessing on either side, and `extract` from files to a store."""
    clips, workers = make_videos(folder, options.files), max(1, (os.cpu_count() or 2) - 1)
    tiny = {"clips": options.files, "workers": workers}
    backbone = create_backbone("dinov2_vits14_reg", "random", options.device)
    for what, size in (
        ("decoding and preprocessing", None),
        ("the same, decoded at 224 pixels", 224),
    ):
        started = time.perf_counter()
        items = work_items(clips, folder)
        for _ in decode_items(items, backbone.transform, 16, size, workers):
            pass
        yield {"task": what, **tiny, "clips/s": options.files / (time.perf_counter() - started)}
    frames = torch.randint(0, 256, (8, 16, 256, 340, 3), dtype=torch.uint8)
    for device in dict.fromkeys(["cpu", options.device]):
        taken = median_seconds(lambda: backbone.transform(frames.to(device)), 5)  # noqa: B023
        yield {"task": f"preprocessing of decoded frames on {device}", "clips/s": 8 / taken}
    for name, compiled in (
        ("dinov2_vits14_reg", False),
        ("dinov2_vits14_reg", True),
        ("dinov2_vitl14_reg", False),
    ):
        if compiled and options.device == "cpu":
            continue
        backbone = create_backbone(name, "random", options.device, compile=compiled)
        gflops = architecture_cost(name)["gflops"]
        backbone(torch.zeros(8, 16, 3, 224, 224, dtype=torch.uint8))  # warms up, compiles
        started = time.perf_counter()
        out = folder / f"{name}-{compiled}"
        report = extract(clips, out, backbone, 16, workers, video_root=folder, progress=False)
        rate = report.done / (time.perf_counter() - started)
        precision, how = str(backbone.precision).removeprefix("torch."), ", compiled" * compiled
        what = f"`extract` with {name}{how}, {precision}"
        share = 100 * rate * gflops / 1000 / peaks[precision]
        yield {
            "task": what,
            **tiny,
            "clips/s": rate,
            "share of peak (%)": share,
            "hours for K400": K400 / rate / 3600,
        }


def text(value: object, column: str) -> str:
    """A cell: a cosine with five decimals, other numbers with three digits or whole."""
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return "-"
    if "cosine" in column:
        return f"{value:.5f}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def save_page(found: dict, folder: Path) -> None:
    """Write gpu.md and gpu.json; after each row, so that a cut run keeps what it measured."""
    peaks = [f"{v:.0f} TFLOP/s in {name}" for name, v in found["peaks (TFLOP/s)"].items()]
    parts = [
        f"# Speed on a GPU\n\n{found['card']}, {found['cores']} CPU cores, torch "
        f"{found['provenance']['versions']['torch']}. Weights are random: speed does not depend on "
        "them. Measured by `python benchmarks/gpu.py`.\n\nThe product of two matrices reaches "
        f'{" and ".join(peaks)}: "share of peak" is against these.'
    ]
    for title, rows in found["tables"].items():
        frame = pd.DataFrame(rows)
        frame = frame[[*frame.select_dtypes(exclude="number"), *frame.select_dtypes("number")]]
        cells = pd.DataFrame({c: [text(v, c) for v in frame[c]] for c in frame})
        sides = ["right" if pd.api.types.is_numeric_dtype(frame[c]) else "left" for c in frame]
        parts += [f"## {title.capitalize()}\n\n{NOTES[title]}"]
        parts += [markdown_table(cells, sides)] if rows else []
    write_text(folder / "gpu.md", "\n\n".join(parts) + "\n")
    save_json(found, folder, "gpu")


def main() -> None:
    """Measure all, and write one page."""
    options = parser().parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no GPU here; --device cpu tries the script itself, slowly")
    peaks = {name: peak(options.device, name, options.size) for name in ("float32", "bfloat16")}
    print(peaks, flush=True)
    probed = (options.device, 1568, 1024) if options.device == "cuda" else (options.device, 16, 32)
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "pipeline": pipeline_rows(options, Path(folder), peaks),
            "training": training_rows(options.device, Path(folder), probed),
            "encoders": chain.from_iterable(
                encoder_rows(name, options, peaks) for name in options.names
            ),
        }
        tables: dict[str, list[dict]] = {title: [] for title in sources}
        machine = {"card": card(options.device), "cores": os.cpu_count()}
        found = {**machine, "peaks (TFLOP/s)": peaks, "tables": tables}
        found["provenance"] = provenance("gpu", 0)
        for title, rows in sources.items():
            for row in rows:
                print(row, flush=True)
                tables[title].append(row)
                save_page(found, options.out)


if __name__ == "__main__":
    main()
