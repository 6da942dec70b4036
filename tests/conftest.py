"""Shared fixtures."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("lift", deadline=None, derandomize=True)
settings.load_profile("lift")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and annotations that lies beside the project for development; absent on a user's machine."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "clips").is_dir():
        pytest.skip("the folder ../shared with real clips and annotations is absent")
    return folder
