"""The seed of a trial: a function of the experiment's seed and the trial's number, whoever trains it."""

from __future__ import annotations

import hashlib


def trial_seed(experiment_seed: int, number: int) -> int:
    """A seed in [0, 2^31)."""
    digest = hashlib.sha256(f"{experiment_seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF
