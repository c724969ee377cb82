"""The checkpoints of a shift's trials: of each the newest two, so that a damaged one costs little.

A new one is written beside the others; the oldest goes once the database knows the new one. What was written and never
reported, because its worker died in between, upkeep tidies away (`service.usecases.checkpoints`).
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from foretune.errors import ForetuneError, NotFound, StorageFull, Unavailable
from foretune.json_types import JsonObject
from service.artifacts import ArtifactStore
from service.db.trials import ring_of
from service.usecases.checkpoints import folder_of
from service.usecases.proposals import StoredTrial
from workers.engine import Checkpoint, InvalidCheckpoint

_log = structlog.get_logger(__name__)


class CheckpointRings:
    """Of the trials that a shift holds on one experiment."""

    def __init__(self, artifacts: ArtifactStore, experiment_id: str) -> None:
        self._artifacts = artifacts
        self._folder = folder_of(experiment_id)
        self._rings: dict[str, list[JsonObject]] = {}
        self._unsettled: set[str] = set()
        """What was written and not yet reported."""

    def hold(self, trial: StoredTrial) -> None:
        """From now on the trial's checkpoints are this shift's."""
        self._rings[trial.id] = ring_of(trial.checkpoint)

    def drop(self, trial_id: str) -> None:
        """They are somebody else's."""
        self._rings.pop(trial_id, None)

    def read(self, trial: StoredTrial) -> Iterator[Checkpoint]:
        """Those of the trial that can be read, the newest first."""
        for place in ring_of(trial.checkpoint):
            try:
                yield Checkpoint.from_bytes(self._artifacts.read_bytes(str(place["artifact"])))
            except (NotFound, InvalidCheckpoint) as error:
                _log.warning("checkpoint_lost", trial=trial.id, error=error.message)

    def write(self, trial: StoredTrial, snapshot: Checkpoint, *, finished: bool) -> JsonObject | None:
        """What is reported of a new checkpoint of a trial that is held; None where there is no room for it.

        A finished trial does not go on, and keeps its last one alone.
        """
        place: JsonObject = {
            "epoch": snapshot.position.epoch,
            "artifact": f"{self._folder}/{trial.id}/{trial.attempts}-{snapshot.position.update}",
        }
        self._unsettled.add(str(place["artifact"]))
        try:
            self._put(trial.id, place, snapshot.to_bytes())
        except (StorageFull, Unavailable) as error:
            _log.error("checkpoint_not_kept", trial=trial.id, error=error.message)
            return None
        older = [one for one in self._rings[trial.id] if one != place]
        return {**place, "before": older[0]} if older and not finished else place

    def _put(self, trial_id: str, place: JsonObject, data: bytes) -> None:
        """Where the disk is full, the older of two checkpoints makes room. Raises StorageFull, Unavailable."""
        try:
            self._artifacts.put_bytes(str(place["artifact"]), data)
        except StorageFull:
            ring = self._rings[trial_id]
            if len(ring) < 2 or place in ring:
                raise
            self._delete(str(ring.pop()["artifact"]))
            self._artifacts.put_bytes(str(place["artifact"]), data)

    def settle(self, trial_id: str, checkpoint: JsonObject, *, kept: bool) -> None:
        """The report with this checkpoint was answered; `kept`: the database refers to it now."""
        if trial_id not in self._rings:
            return
        old, new = self._rings[trial_id], ring_of(checkpoint)
        self._unsettled.discard(str(new[0]["artifact"]))
        self._rings[trial_id] = new if kept else old
        left = [one["artifact"] for one in self._rings[trial_id]]
        for one in [*old, *new]:
            if one["artifact"] not in left:
                self._delete(str(one["artifact"]))

    def delete_all(self) -> None:
        """When nobody is left to refer to any."""
        known = {str(one["artifact"]) for ring in self._rings.values() for one in ring}
        for key in self._unsettled | known:
            self._delete(key)

    def _delete(self, key: str) -> None:
        try:
            self._artifacts.delete(key)
        except ForetuneError as error:
            _log.warning("artifact_not_deleted", artifact=key, error=error.message)
