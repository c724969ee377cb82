"""How a version of a project's model compares tasks."""

from __future__ import annotations

import structlog

from metalearner import FeatureLikeness, Likeness, SpaceLikeness, TaskSpace

_log = structlog.get_logger(__name__)


def likeness_of(space: bytes | None) -> Likeness:
    """In the version's space of tasks; by their features where it has none, or none that this release can read."""
    if space is not None:
        try:
            return SpaceLikeness(TaskSpace.from_bytes(space))
        except ValueError as error:
            _log.warning("task_space_unreadable", error=str(error))
    return FeatureLikeness()
