"""A desk worker's threads: one takes the API's calls, a few answer them with the meta-learner.

The calls that concern one experiment are answered in order, by one thread at a time: an experiment whose history takes
a second to read, or whose priors do, holds up its own clients alone.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

import orjson
import redis
import structlog

from foretune.errors import ForetuneError, NotFound
from foretune.json_types import JsonObject, JsonValue
from metalearner import Effort
from service.bus import Call
from service.usecases.proposals import ToldEnding
from workers.lanes import Lanes
from workers.neighbours import neighbours
from workers.process import WorkerProcess
from workers.proposals import Proposals
from workers.recommending import TaskRecommendations, recommend_for_experiment

_log = structlog.get_logger(__name__)
_WAIT_S = 1.0
_MOST_TOGETHER = 8
"""Calls that one desk takes at once: those it answers last wait for those it answers first."""
_MOST_HELD = 256
"""Calls that one desk holds; the others are left to other desks."""
_THREADS = 4
"""Experiments that are answered at the same time."""
_PAUSE_S = 0.0005
"""Between two steps of work ahead, so that a call that has come gets its turn."""
_BUSY_S = 0.5
"""Asked again within this time, an experiment gets fast proposals: its client must not wait."""


class Desk:
    """Serves calls until the process stops. Losing Redis or Postgres for a while loses calls, which callers expect."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._proposals = Proposals(process.database)
        self._task_recommendations = TaskRecommendations(process.database)
        self._asked_at: defaultdict[str, float] = defaultdict(lambda: -1e9)
        self._lanes = Lanes(self._work, _THREADS, _MOST_HELD, "desk-lane")
        self._more_ahead = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._serve, name="desk", daemon=True).start()
        threading.Thread(target=self._work_ahead, name="desk-ahead", daemon=True).start()

    def _serve(self) -> None:
        while not self._process.stopping.is_set():
            try:
                calls = self._process.bus.take(_WAIT_S, _MOST_TOGETHER)
            except redis.RedisError as error:
                _log.warning("broker_away", error=str(error))
                time.sleep(_BUSY_S)
                continue
            except Exception:  # noqa: BLE001 - nor may one that cannot be read
                _log.exception("calls_not_taken")
                time.sleep(_BUSY_S)
                continue
            lanes: defaultdict[str, list[Call]] = defaultdict(list)
            for call in calls:
                lanes[_lane(call)].append(call)
            for lane, together in lanes.items():
                self._lanes.add(lane, together)
        self._lanes.close()

    def _work_ahead(self) -> None:
        """In idle time, what the next recommendations will need: a millisecond at a time, none while a call waits."""
        while not self._process.stopping.is_set():
            self._lanes.wait_until_idle()
            try:
                more = self._task_recommendations.work_ahead()
            except Exception:  # noqa: BLE001 - whoever needs it will work it out, and hear of what is wrong
                _log.exception("work_ahead_failed")
                more = False
            if more:
                time.sleep(_PAUSE_S)
            else:
                self._more_ahead.wait(_WAIT_S)
                self._more_ahead.clear()

    def _work(self, calls: Sequence[Call]) -> None:
        for together in _grouped(calls):
            try:
                self._answer(together)
            except Exception:  # noqa: BLE001 - one call must not end the desk
                _log.exception("call_failed", kind=together[0].kind)
                self._give_up(together)

    def _give_up(self, calls: Sequence[Call]) -> None:
        """Callers have an answer of their own: they need not wait for one that will not come."""
        with suppress(redis.RedisError, OSError):
            for call in calls:
                self._process.bus.answer(call, ForetuneError())

    def _answer(self, calls: Sequence[Call]) -> None:
        """Answers calls that ask for the same: one look at the database, one fit of the model."""
        kind, payload, bus = calls[0].kind, calls[0].payload, self._process.bus
        try:
            if kind == "propose":
                counts = [_count(call) for call in calls]
                told = [one for call in calls if (one := _told(call)) is not None]
                proposals = iter(self._propose(_experiment(calls[0]), sum(counts), told, waiting=len(calls) > 1))
                for call, count in zip(calls, counts, strict=True):
                    bus.answer(call, {"proposals": list(islice(proposals, count))})
                return
            reply = self.answer(kind, payload)
            if reply is not None:
                for call in calls:
                    bus.answer(call, reply)
        except ForetuneError as error:
            for call in calls:
                bus.answer(call, error)

    def answer(self, kind: str, payload: JsonObject) -> JsonObject | None:
        """The answer to any call but `propose`. Raises ForetuneError, which is an answer too."""
        experiment_id = str(payload.get("experiment", ""))
        if kind == "stopping":
            self._proposals.store_thresholds(experiment_id)
            return None
        if kind == "recommend":
            return recommend_for_experiment(self._proposals, experiment_id, payload)
        if kind == "recommend_task":
            found = self._task_recommendations.recommend(payload)
            self._more_ahead.set()
            return found
        if kind == "priors":
            return self._proposals.priors(experiment_id)
        if kind == "neighbours":
            return neighbours(self._process.database, payload)
        raise NotFound(f"the desk has no answer to {kind!r}")

    def _propose(self, experiment_id: str, count: int, told: Sequence[ToldEnding], *, waiting: bool) -> list[JsonValue]:
        now = time.monotonic()
        busy = waiting or now - self._asked_at[experiment_id] < _BUSY_S or self._lanes.held > 1
        self._asked_at[experiment_id] = now
        effort = Effort.FAST if busy else Effort.THOROUGH
        return [
            {
                "configuration": proposed.configuration,
                "origin": proposed.origin,
                "predicted": proposed.predicted,
                "replay": proposed.replay,
            }
            for proposed in self._proposals.propose(experiment_id, count, effort, told)
        ]


def _lane(call: Call) -> str:
    """What calls must be answered in order: those that touch one experiment, and those on no experiment."""
    return _experiment(call) or call.kind


def _grouped(calls: Sequence[Call]) -> list[list[Call]]:
    """Calls that one answer serves, by the oldest of each group."""
    groups: dict[bytes, list[Call]] = {}
    for call in calls:
        # Proposals are shared out whatever their number.
        asked = _experiment(call) if call.kind == "propose" else call.payload
        groups.setdefault(orjson.dumps([call.kind, asked], option=orjson.OPT_SORT_KEYS), []).append(call)
    return list(groups.values())


def _experiment(call: Call) -> str:
    return str(call.payload.get("experiment", ""))


def _told(call: Call) -> ToldEnding | None:
    """The ending that this call tells of."""
    told = call.payload.get("told")
    return None if told is None else ToldEnding.from_json(told)


def _count(call: Call) -> int:
    count = call.payload["count"]
    assert isinstance(count, int)
    return count
