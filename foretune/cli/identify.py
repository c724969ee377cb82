"""Which experiment is meant: a whole id, its beginning or end, a name, or `last`."""

from __future__ import annotations

import re

from foretune.client import Client, Experiment
from foretune.errors import InvalidRequest, NotFound

_WHOLE_ID = re.compile(r"exp_[0-9a-z]{22}")
_SHORTEST = 3


def experiment(client: Client, wanted: str) -> Experiment:
    """Raises NotFound when nothing fits, InvalidRequest when several do, naming them."""
    if wanted == "last":
        newest = next(client.experiments.list(limit=1), None)
        if newest is None:
            raise NotFound("there is no experiment yet; submit one with `foretune submit FILE.yaml`")
        return newest
    if _WHOLE_ID.fullmatch(wanted):
        return client.experiments.get(wanted)
    everything = list(client.experiments.list())
    named = [one for one in everything if one.name == wanted]
    fitting = named or [one for one in everything if _fits(one.id, wanted)]
    if not fitting:
        raise NotFound(f"no experiment's id or name fits {wanted!r}; `foretune list` shows them")
    if len(fitting) > 1:
        listed = ", ".join(f"{one.id} ({one.name})" for one in fitting[:5])
        more = f" and {len(fitting) - 5} more" if len(fitting) > 5 else ""
        raise InvalidRequest(f"{wanted!r} fits {len(fitting)} experiments: {listed}{more}; write more of the id")
    return fitting[0]


def _fits(identity: str, wanted: str) -> bool:
    bare = wanted.removeprefix("exp_")
    # Ids begin with the time, so recent ones share their beginnings: the end tells them apart sooner.
    return len(bare) >= _SHORTEST and (identity.removeprefix("exp_").startswith(bare) or identity.endswith(bare))
