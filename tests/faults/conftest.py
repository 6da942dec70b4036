"""Faults on purpose: `make test` runs a few of each kind, `make faults` many, from a seed that it prints."""

import os
import random

import pytest


@pytest.fixture
def dice(request) -> random.Random:
    """Random numbers of this test; LIFT_FAULTS_SEED gives others."""
    return random.Random(f"{os.environ.get('LIFT_FAULTS_SEED', 0)} {request.node.name}")
