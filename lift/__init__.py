"""Video embeddings that know the direction of time."""

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


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that `import lift` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lift' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"lift.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
