"""Which prior tasks a data set is most like. A desk worker answers, called with kind `neighbours`:

payload   {"project": id, "dataset": id, "features": {…}, "network": name | null, "limit": number}
answer    {"space": "…", "considered": number, "neighbours": [Neighbour]}
"""

from __future__ import annotations

import asyncio

from foretune.errors import Unavailable
from foretune.json_types import JsonObject
from foretune.wire.datasets import Neighbours
from service.bus import Bus
from service.db import datasets as dataset_rows
from service.db.session import Database
from service.usecases import datasets, histories

_DESK_S = 10.0


async def nearest(
    database: Database, bus: Bus, project: str, id_or_name: str, *, network: str | None, limit: int
) -> Neighbours:
    """The prior tasks most like the data set, the nearest first.

    Raises NotFound, Conflict while the file is being read, Unavailable when no worker answers.
    """
    payload = await asyncio.to_thread(_question, database, project, id_or_name)
    answer = await bus.call("neighbours", {**payload, "network": network, "limit": limit}, _DESK_S)
    if answer is None:
        raise Unavailable("no desk worker answers: which tasks are alike is for it to say", code="no_desk")
    return Neighbours.model_validate({**answer, "dataset": payload["dataset"]})


def _question(database: Database, project: str, id_or_name: str) -> JsonObject:
    with database.reading() as tx:
        dataset = datasets.get(tx, project, id_or_name)
        stored = dataset_rows.find_by_id(tx, dataset.id)
        assert stored is not None
        return {"project": project, "dataset": stored.id, "features": dict(histories.dataset_features(stored))}
