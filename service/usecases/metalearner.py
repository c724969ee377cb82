"""What proposals rest on, and bringing it up to date."""

from __future__ import annotations

import asyncio

from foretune.errors import Unavailable
from foretune.wire.histories import FittedVersion, MetaLearner, PriorGate, PriorHistory, Priors, TaskSpaceScores
from service.bus import Bus
from service.db import histories as history_rows
from service.db import models as model_rows
from service.db.models import StoredModel
from service.db.session import Database, Transaction
from service.settings import settings
from service.usecases import experiments, fitting, histories

_SHOWN = 20
_DESK_S = 10.0
"""A project's histories are read when the first proposal of an experiment, or this call, asks for them."""


def describe(tx: Transaction, project: str) -> MetaLearner:
    """The model in use, those before it, and the histories."""
    experiments, trials = history_rows.count(tx, project)
    champion = fitting.in_use(tx, project)
    return MetaLearner(
        version=champion.version if champion else 0,
        kind="fitted" if champion else "portfolio",
        model=_version(champion) if champion else None,
        versions=[_version(one) for one in model_rows.listed(tx, project, _SHOWN)],
        starter=settings().foretune_starter_history,
        experiments=experiments,
        imported=history_rows.count_imported(tx, project),
        trials=trials,
        updated_at=history_rows.newest(tx, project),
        waiting=history_rows.any_uncompacted(tx, project, None),
    )


def fit(database: Database, project: str) -> MetaLearner:
    """Makes histories of whatever has finished, has a model fitted on them, and says what there is now."""
    histories.catch_up(database, project)
    with database.transaction() as tx:
        fitting.request(tx, project, again=True)
    with database.reading() as tx:
        return describe(tx, project)


def roll_back(tx: Transaction, project: str, version: int) -> MetaLearner:
    """Uses an earlier model again. Raises NotFound and NotPromotable."""
    fitting.roll_back(tx, project, version)
    return describe(tx, project)


def _version(one: StoredModel) -> FittedVersion:
    return FittedVersion(
        version=one.version,
        state=one.state.value,
        parent=one.parent,
        experiments=one.histories,
        trials=one.trials,
        fitted=one.fitted,
        scores=one.scores,
        space=TaskSpaceScores.model_validate(one.space_scores) if one.space_scores else None,
        reason=one.reason,
        created_at=one.created_at,
        finished_at=one.finished_at,
        promoted_at=one.promoted_at,
    )


async def priors(database: Database, bus: Bus, project: str, experiment_id: str) -> Priors:
    """Which histories count for an experiment, how much, and how far they are believed. A desk worker answers, called
    with kind `priors`:

        payload   {"experiment": id}
        answer    {"considered": number, "space": "features" | "learned", "histories": [PriorHistory],
                   "gate": PriorGate | null}

    Raises NotFound, Unavailable when no worker answers.
    """
    stored = await asyncio.to_thread(_find, database, project, experiment_id)
    if stored == "none":
        return Priors(experiment=experiment_id, considered=0, histories=[])
    answer = await bus.call("priors", {"experiment": experiment_id}, _DESK_S)
    if answer is None or not isinstance(found := answer.get("histories"), list):
        raise Unavailable("no desk worker answers: which histories count is for it to say", code="no_desk")
    considered = answer.get("considered")
    return Priors(
        experiment=experiment_id,
        considered=considered if isinstance(considered, int) else len(found),
        histories=[PriorHistory.model_validate(one) for one in found],
        space="learned" if answer.get("space") == "learned" else "features",
        gate=PriorGate.model_validate(gate) if isinstance(gate := answer.get("gate"), dict) else None,
    )


def _find(database: Database, project: str, experiment_id: str) -> str | list[str]:
    with database.reading() as tx:
        return experiments.find(tx, project, experiment_id).priors
