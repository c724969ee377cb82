"""Trials as the service keeps them: lists, measurements, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from foretune.client.download import save
from foretune.client.paging import iterate
from foretune.client.transport import Transport, segment
from foretune.states import TrialState
from foretune.wire.base import Page
from foretune.wire.trials import Measurement, Trial


class Trials:
    """`client.trials`: reading trials. To run them, see `Experiment.ask`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, experiment_id: str, *, state: TrialState | str | None = None, limit: int | None = None
    ) -> Iterator[Trial]:
        """The trials of an experiment in order of creation. Raises NotFound.

        >>> [trial.value for trial in client.trials.list("exp_…", state="COMPLETED")]  # doctest: +SKIP
        """
        path = f"/v1/experiments/{segment(experiment_id)}/trials"
        return iterate(self._transport, path, Page[Trial], {"state": state}, limit)

    def get(self, trial_id: str) -> Trial:
        """One trial. Raises NotFound."""
        return self._transport.call("GET", f"/v1/trials/{segment(trial_id)}").as_model(Trial)

    def measurements(self, trial_id: str) -> Iterator[Measurement]:
        """What each epoch of a trial reported, in order. Raises NotFound."""
        return iterate(self._transport, f"/v1/trials/{segment(trial_id)}/measurements", Page[Measurement])

    def checkpoint(self, trial_id: str, path: str | PathLike[str]) -> Path:
        """Saves the trial's newest checkpoint (safetensors, its configuration in the header) and gives its path.

        Raises NotFound when none is kept.
        """
        return save(self._transport, f"/v1/trials/{segment(trial_id)}/checkpoint", Path(path))
