"""Optuna as its users run it on Postgres: RDBStorage, the default sampler and pruner, ask and tell."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import optuna
import psycopg
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from sqlalchemy import make_url

from benchmarks.service_clients import Asked
from benchmarks.service_task import PARAMETERS, REPORTED, PastTrial, final_loss, past_trials

STUDY = "benchmark"


@dataclass(frozen=True)
class OptunaService:
    """A study in the database at `url`."""

    url: str

    @property
    def database(self) -> str:
        """The name of the database."""
        return make_url(self.url).database or ""

    def connect(self) -> OptunaSession:
        """Loads the study, as a worker that joins does."""
        return OptunaSession(self.url)


class OptunaSession:
    """One client's storage and study."""

    def __init__(self, url: str) -> None:
        optuna.logging.set_verbosity(logging.WARNING)
        self._storage = optuna.storages.RDBStorage(url)
        self._study = optuna.load_study(study_name=STUDY, storage=self._storage)

    def one_trial(self, reports: int, *, another: bool = False) -> Asked:  # noqa: ARG002 - each call asks for itself
        """See `benchmarks.service_clients.Session`."""
        started = time.perf_counter()
        trial = self._study.ask(distributions())
        asked_s = time.perf_counter() - started
        for epoch, value in enumerate(REPORTED[:reports], start=1):
            trial.report(value, epoch)
            if trial.should_prune():
                raise RuntimeError(f"trial {trial.number} was pruned; then the sides do not have the same work")
        self._study.tell(trial, final_loss(trial.params))
        return Asked(asked_s, by_model=True)

    def close(self) -> None:
        """See `benchmarks.service_clients.Session`."""
        self._storage.remove_session()
        self._storage.engine.dispose()


@lru_cache(maxsize=1)
def distributions() -> dict[str, BaseDistribution]:
    """The benchmark's space in Optuna's words."""
    made: dict[str, BaseDistribution] = {}
    for parameter in PARAMETERS:
        assert isinstance(parameter, dict)
        name, log = str(parameter["name"]), bool(parameter.get("log", False))
        match parameter:
            case {"type": "float", "low": float(low), "high": float(high)}:
                made[name] = FloatDistribution(low, high, log=log)
            case {"type": "int", "low": int(low), "high": int(high)}:
                made[name] = IntDistribution(low, high, log=log)
            case {"choices": list(choices)}:
                made[name] = CategoricalDistribution([str(choice) for choice in choices])
    return made


class StudyTemplates:
    """Databases that hold a study with some history, made once and cloned for each run.

    `url` is any database of the server, as SQLAlchemy writes it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: dict[tuple[int, int], str] = {}

    @contextmanager
    def study(self, history: int, reports: int) -> Iterator[OptunaService]:
        """A study of its own with `history` finished trials of `reports` intermediate values each."""
        template = self._made.get((history, reports))
        if template is None:
            template = self._made[history, reports] = f"optuna_{history}_{reports}"
            self._execute(f"CREATE DATABASE {template}")
            _fill(self._database(template), history, reports)
        name = f"{template}_run"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield OptunaService(self._database(name))
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(plain_url(self._url), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _database(self, name: str) -> str:
        return make_url(self._url).set(database=name).render_as_string(hide_password=False)


def plain_url(url: str) -> str:
    """SQLAlchemy's URL as libpq reads it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def _fill(url: str, history: int, reports: int) -> None:
    """The rows that `Study.add_trials` would write, by COPY: one by one they take minutes."""
    storage = optuna.storages.RDBStorage(url)
    optuna.create_study(study_name=STUDY, storage=storage)
    past = list(past_trials(history))
    with psycopg.connect(plain_url(url)) as connection, connection.cursor() as cursor:
        with cursor.copy(
            "COPY trials (trial_id, number, study_id, state, datetime_start, datetime_complete) FROM STDIN"
        ) as copy:
            for number in range(history):
                copy.write_row((number + 1, number, 1, "COMPLETE", "2026-01-01 00:00:00", "2026-01-01 00:01:00"))
        with cursor.copy("COPY trial_params (trial_id, param_name, param_value, distribution_json) FROM STDIN") as copy:
            for number, trial in enumerate(past):
                for name, distribution in distributions().items():
                    inner = distribution.to_internal_repr(trial.configuration[name])
                    copy.write_row((number + 1, name, inner, distribution_to_json(distribution)))
        with cursor.copy("COPY trial_values (trial_id, objective, value, value_type) FROM STDIN") as copy:
            for number, trial in enumerate(past):
                copy.write_row((number + 1, 0, trial.loss, "FINITE"))
        with cursor.copy(
            "COPY trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) FROM STDIN"
        ) as copy:
            for number in range(history):
                for epoch, value in enumerate(REPORTED[:reports], start=1):
                    copy.write_row((number + 1, epoch, value, "FINITE"))
        cursor.execute("SELECT setval('trials_trial_id_seq', %s, %s)", (max(history, 1), history > 0))
    _check(storage, past)
    storage.remove_session()
    storage.engine.dispose()
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _check(storage: optuna.storages.RDBStorage, past: list[PastTrial]) -> None:
    """Optuna must read what was copied as if it had written it."""
    read = optuna.load_study(study_name=STUDY, storage=storage).trials
    if len(read) != len(past):
        raise RuntimeError(f"Optuna reads {len(read)} of {len(past)} trials")
    for mine, theirs in zip(past[:3], read[:3], strict=True):
        if theirs.value != mine.loss or json.dumps(theirs.params, sort_keys=True) != json.dumps(
            mine.configuration, sort_keys=True
        ):
            raise RuntimeError(f"Optuna reads {theirs} where {mine} was written")
