"""Make the models that ship with the package: `make default-model LIFT_DATA=/data`.

It needs what `make reproduce PROFILE=droid` and `PROFILE=full` have made. The clips of another
seed are rendered here.
"""

import shutil
from itertools import chain
from pathlib import Path

import torch
from huggingface_hub import ModelCard, ModelCardData

from lift.backbones import create_backbone
from lift.checkpoints import CONVERGED_MODEL, PACKAGED_MODEL
from lift.data.clips import read_clips
from lift.data.synthetic import synthesise
from lift.embedding import as_model_input
from lift.equivariant import EquivariantCode
from lift.extraction import extract
from lift.model import MODEL_CARD, LiFT
from lift.store import FeatureStore
from lift.training import losses_by_epoch

ROOT = Path(__file__).parents[1]
SEED, LEVELS, CLIPS = 3, ("easy", "hard"), 20  # a seed that no table scores


def rendered(level: str, backbone: torch.nn.Module) -> tuple[FeatureStore, list[str]]:
    """Features of the rendered training clips of one level, and their ids."""
    folder = ROOT / "runs" / "fit" / level
    clips = synthesise(folder / "synthetic", CLIPS, SEED, CLIPS, level)
    train = clips[clips["split"] == "train"]
    print(extract(train, folder / "store", backbone, video_root=folder / "synthetic"))
    return FeatureStore.open(folder / "store"), list(train["clip_id"])


def real() -> tuple[FeatureStore, list[str]]:
    """Features of DROID's clips that are in no chiral group, and their ids."""
    run = ROOT / "runs" / "droid"
    clips = read_clips(run / "clips" / "cia-droid.csv")
    ids = list(clips.loc[clips["group"].isna(), "clip_id"])
    return FeatureStore.open(run / "features" / "droid"), ids


def card(folder: Path, **texts: str) -> None:
    """Write the model card of a folder."""
    data = ModelCardData(license="mit", library_name="lift", tags=["video-embedding", "chirality"])
    ModelCard.from_template(data, template_str=MODEL_CARD, **texts).save(folder / "README.md")


USAGE = """from lift import LiFTEmbedder

embedding = LiFTEmbedder().fit_transform(["clip.mp4"])"""


def ship_code() -> None:
    """The equivariant code of cells, fitted to rendered and to real clips."""
    backbone = create_backbone("efficientnet_lite0", middle=3, compile=True)
    code = EquivariantCode(backbone=backbone.description)
    sources = [*(rendered(level, backbone) for level in LEVELS), real()]
    batches = chain.from_iterable(
        (as_model_input(x, store.description, code) for x in store.batches(ids, 64))
        for store, ids in sources
    )
    code.fit_batches(batches).save(PACKAGED_MODEL, torch.float16)
    counts = [len(ids) for _, ids in sources]
    card(
        PACKAGED_MODEL,
        title="An equivariant code of EfficientNet-Lite0 features",
        summary=(
            "Codes [c, v] that are even and odd under time reversal, in closed form, from the "
            "whole frame, from a map of the middle of the network on cells, and from the flow "
            "between its cells; see the notebook 01_equivariant. 256 + 512 numbers."
        ),
        training_data=(
            f"no labels; {counts[0]} + {counts[1]} rendered clips (`lift synth`, easy and hard, "
            f"seed {SEED}) and {counts[2]} of the 1,000 web clips of DROID (CC BY 4.0), those in "
            "no chiral group. Its design (which parts, their weights, the lags) was chosen by "
            "labels of DROID's other clips and of rendered clips of that seed"
        ),
        profile="tools/ship_model.py",
        metrics="see figures/droid and figures/full, with intervals and beside the baselines",
        good_for="the direction of time in short clips of one event, without a model hub",
        not_good_for=(
            "clips of several events, features of any other backbone; its numbers on DROID are "
            "optimistic, because its design was chosen there"
        ),
        usage=USAGE,
    )


def ship_lift() -> None:
    """The LiFT that the profile full trained to its plateau."""
    run = ROOT / "runs" / "full"
    model, clips = LiFT.from_pretrained(run / "model"), read_clips(run / "synthetic" / "clips.csv")
    shutil.rmtree(CONVERGED_MODEL, ignore_errors=True)
    losses = losses_by_epoch(run / "model")["validation/loss"]
    gained = 100 * (1 - losses.min() / losses.iloc[:-20].min())
    texts = {
        "summary": (
            f"LiFT (d = 128, four layers), the opponent of the tables: {len(losses)} epochs; in "
            f"the last 20 its lowest validation loss fell by {gained:.1f} %. "
            "figures/full/lift_training shows the whole training."
        ),
        "training_data": (
            f"{(clips['split'] == 'train').sum()} rendered clips (`lift synth`, easy, seed 0, "
            "split train), windows of 31 stored frames"
        ),
        "profile": "full (config/full.yaml)",
        "metrics": "see table 2 of figures/demo and figures/full",
        "good_for": "comparisons on EfficientNet-Lite0 features",
        "not_good_for": "real videos: it has seen rendered clips alone",
    }
    model.half().save_pretrained(CONVERGED_MODEL, model_card_kwargs=texts)
    (CONVERGED_MODEL / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    ship_code()
    if (ROOT / "runs" / "full" / "model" / "model.safetensors").is_file():
        ship_lift()
