"""A fit's space of tasks: learned from a project's histories, and used where it is better on families left out.

What is worked out fold by fold is kept, so that a fit goes on where another worker was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from foretune.json_types import JsonObject, JsonValue
from metalearner import TaskHistory
from metalearner.task_space import LEAST_HISTORIES
from service.db.histories import StoredHistory

if TYPE_CHECKING:
    from metalearner.task_judging import Judgement

_SECONDS = 60.0
"""No training takes longer; of a thousand histories one takes a core about a quarter of that."""
_SEED = 0
_NEW_SHARE = 10
"""A space is learned anew when one history in so many is new."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a space of tasks is. `folds`: what was judged so far; `scores`: the verdict, once there is one."""

    folds: tuple[JsonValue, ...] = ()
    scores: JsonObject | None = None
    space: bytes | None = None

    @property
    def histories(self) -> int:
        """What the space was learned from; 0 before there is a verdict."""
        found = (self.scores or {}).get("histories")
        return found if isinstance(found, int) else 0


def learn(
    stored: Sequence[StoredHistory],
    told: Sequence[TaskHistory],
    progress: Progress,
    champion: Progress,
    keep: Callable[[Progress], None],
    meanwhile: Callable[[], None],
) -> Progress:
    """Goes on from `progress` to the verdict. There is none for fewer than 30 histories that can be compared and say
    what their data are like; that on the champion's space stands while few histories are new.

    `keep` is called whenever something is done, `meanwhile` while something is; both may raise.
    """
    places = [place for place, one in enumerate(told) if one.task.features]
    if progress.scores is not None or len(places) < LEAST_HISTORIES:
        return progress
    if not progress.folds and _NEW_SHARE * (len(places) - champion.histories) < len(places):
        keep(champion)
        return champion
    # Torch takes a second or two to import, and a project with fewer histories does without.
    from metalearner.task_judging import FamilyScore, Judgement, Judging
    from metalearner.task_training import train

    histories, families = [told[place] for place in places], [_family(stored[place]) for place in places]
    judging = Judging(histories, seed=_SEED, families=families)
    for number in range(len(progress.folds), judging.folds):
        found = judging.fold(number, seconds=_SECONDS, meanwhile=meanwhile)
        if found is None:
            return progress
        progress = Progress((*progress.folds, [one.to_json() for one in found]))
        keep(progress)
    judgement = Judgement.of([FamilyScore.from_json(one) for fold in progress.folds for one in _entries(fold)])
    if judgement is None:
        return progress
    space = None
    if judgement.wins:
        space = train(histories, seed=_SEED, seconds=_SECONDS, families=families, meanwhile=meanwhile)
    scores: JsonObject = {"used": space is not None, "histories": len(places), **_scores(judgement)}
    _log.info("task_space_judged", **scores)
    progress = Progress(progress.folds, scores, space.to_bytes() if space is not None else None)
    keep(progress)
    return progress


def _family(history: StoredHistory) -> str:
    """What shares its data, wherever the data are."""
    return history.dataset_id or history.dataset_name or history.reference


def _scores(judgement: Judgement) -> JsonObject:
    """As `foretune.wire.histories.TaskSpaceScores`, but for what it was learned from and whether it is used."""
    from metalearner.task_judging import AFTER, ARMS

    return {
        "families": len(judgement.families),
        "regret": {arm: [judgement.regret(arm, after) for after in AFTER] for arm in ARMS},
    }


def _entries(fold: JsonValue) -> list[JsonObject]:
    assert isinstance(fold, list)
    return [one for one in fold if isinstance(one, dict)]
