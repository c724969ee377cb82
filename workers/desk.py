"""A desk worker's thread: answers the API's calls with the meta-learner."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import redis
import structlog

from foretune.errors import NotFound
from foretune.json_types import JsonObject, JsonValue
from metalearner import Effort
from workers.priors import described
from workers.process import WorkerProcess
from workers.proposals import Proposals
from workers.recommending import TaskRecommendations, recommend_for_experiment

_log = structlog.get_logger(__name__)
_WAIT_S = 1.0
_BUSY_S = 0.5
"""Asked again within this time, an experiment gets fast proposals: its client must not wait."""


class Desk:
    """Serves calls until the process stops. Losing Redis or Postgres for a while loses calls, which callers expect."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._proposals = Proposals(process.database)
        self._task_recommendations = TaskRecommendations(process.database)
        self._asked_at: defaultdict[str, float] = defaultdict(lambda: -1e9)

    def start(self) -> None:
        threading.Thread(target=self._serve, name="desk", daemon=True).start()

    def _serve(self) -> None:
        while not self._process.stopping.is_set():
            try:
                self._process.bus.serve(self.answer, _WAIT_S)
            except redis.RedisError as error:
                _log.warning("broker_away", error=str(error))
                time.sleep(_BUSY_S)
            except Exception:  # noqa: BLE001 - one call must not end the desk
                _log.exception("call_failed")

    def answer(self, kind: str, payload: JsonObject) -> JsonObject | None:
        """The answer to one call. Raises ForetuneError, which is an answer too."""
        experiment_id = str(payload.get("experiment", ""))
        if kind == "propose":
            count = payload["count"]
            assert isinstance(count, int)
            return {"proposals": self._propose(experiment_id, count)}
        if kind == "stopping":
            self._proposals.store_thresholds(experiment_id)
            return None
        if kind == "recommend":
            return recommend_for_experiment(self._proposals, experiment_id, payload)
        if kind == "recommend_task":
            return self._task_recommendations.recommend(payload)
        if kind == "priors":
            problem, priors = self._proposals.priors(experiment_id)
            return {"considered": len(priors.histories), "histories": described(problem, priors)}
        raise NotFound(f"the desk has no answer to {kind!r}")

    def _propose(self, experiment_id: str, count: int) -> list[JsonValue]:
        now = time.monotonic()
        busy = now - self._asked_at[experiment_id] < _BUSY_S or self._process.bus.calls_waiting() > 0
        self._asked_at[experiment_id] = now
        effort = Effort.FAST if busy else Effort.THOROUGH
        return [
            {
                "configuration": proposed.configuration,
                "origin": proposed.origin,
                "predicted": proposed.predicted,
                "replay": proposed.replay,
            }
            for proposed in self._proposals.propose(experiment_id, count, effort)
        ]
