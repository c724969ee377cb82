"""The chaos run, short: a dozen faults at once against a stack of its own; `make chaos` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foretune.events import Event, EventType
from tests.faults.chaos import proof
from tests.faults.chaos.faults import KINDS, plan

ROOT = Path(__file__).parents[2]


def test_nothing_is_lost_whatever_dies() -> None:
    """Given processes die, hang and are cut off while jobs run, all end, with the results of an undisturbed run."""
    options = ("--faults", "10", "--seed", "11", "--pause", "0.3", "--jobs", "2")
    jobs = ("--only", "one at a time", "total epochs")
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults.chaos", *options, *jobs],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "nothing lost" in run.stdout


class TestPlan:
    def test_it_is_a_function_of_the_seed(self) -> None:
        one, again, other = (list(plan(seed, 60, 2.5, small_disk=True)) for seed in (1, 1, 2))
        assert one == again
        assert one != other

    def test_the_first_round_has_every_kind(self) -> None:
        planned = list(plan(3, len(KINDS), 2.5, small_disk=True))
        assert {fault.kind.name for fault in planned} == {kind.name for kind in KINDS}

    def test_where_no_disk_can_be_made_small_none_is_filled(self) -> None:
        assert not any("disk" in fault.kind.name for fault in plan(3, 100, 2.5, small_disk=False))


def event(sequence: int, kind: EventType, **data: object) -> Event:
    return Event(sequence, kind, data)  # type: ignore[arg-type]


class TestProof:
    """What it would not notice, it could not prove."""

    def test_a_gap_in_the_log_is_noticed(self) -> None:
        whole = [
            event(1, EventType.TRIAL_CREATED, trial="t"),
            event(2, EventType.EXPERIMENT_STATE, state="COMPLETED"),
        ]
        proof.whole(whole)
        for broken in (whole[1:], whole[:1], [whole[0], whole[0], whole[1]], []):
            with pytest.raises(AssertionError):
                proof.whole(broken)
