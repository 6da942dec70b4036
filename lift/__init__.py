"""Video embeddings that know the direction of time."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "LiftError": "io",
    "curvature": "geometry",
    "straightness": "geometry",
    "LiFT": "model",
    "LiFTConfig": "model",
    "LiFTOutput": "model",
    "CurvatureLoss": "losses",
    "LiFTLoss": "losses",
    "VideoError": "video",
    "read_frames": "video",
    "sample_indices": "video",
    "create_backbone": "backbones",
    "FeatureStore": "store",
    "extract": "extraction",
    "LiFTEmbedder": "embedding",
    "load_model": "embedding",
    "EquivariantCode": "equivariant",
    "probe_groups": "probes",
    "diagnose": "diagnosis",
}
__all__ = sorted(_HOMES)
if TYPE_CHECKING:  # a type checker does not call __getattr__
    from lift.backbones import create_backbone as create_backbone
    from lift.diagnosis import diagnose as diagnose
    from lift.embedding import LiFTEmbedder as LiFTEmbedder, load_model as load_model
    from lift.equivariant import EquivariantCode as EquivariantCode
    from lift.extraction import extract as extract
    from lift.geometry import curvature as curvature, straightness as straightness
    from lift.io import LiftError as LiftError
    from lift.losses import CurvatureLoss as CurvatureLoss, LiFTLoss as LiFTLoss
    from lift.model import LiFT as LiFT, LiFTConfig as LiFTConfig, LiFTOutput as LiFTOutput
    from lift.probes import probe_groups as probe_groups
    from lift.store import FeatureStore as FeatureStore
    from lift.video import (
        VideoError as VideoError,
        read_frames as read_frames,
        sample_indices as sample_indices,
    )


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that `import lift` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lift' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"lift.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
