"""Optuna's studies as histories. Needs the extra `foretune[optuna]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.errors import InvalidHistory
from foretune.importing.runs import Found, Heading, Run, history
from foretune.metrics import Goal
from foretune.parameters import Categorical, Float, Int, Scalar
from foretune.spaces import AnyParameter
from foretune.states import TrialState

if TYPE_CHECKING:
    import optuna


def read(storage: str, study: str | None, metric: str | None, features: Mapping[str, float | str]) -> Iterator[Found]:
    """Each study of a storage, or the one of that name. `storage`: a URL of a database, or the path of a journal file.

    Raises InvalidHistory for a storage that cannot be read, a study that is not there, or one with several objectives.
    """
    try:
        import optuna
    except ImportError as error:
        raise InvalidHistory("Optuna is not installed here: pip install 'foretune[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = _opened(storage)
    try:
        names = optuna.get_all_study_names(opened)
    except Exception as error:
        raise InvalidHistory(f"{storage} cannot be read: {error}") from error
    if study is not None and study not in names:
        raise InvalidHistory(f"{storage} has no study {study!r}; there are {', '.join(names) or 'none'}")
    for name in names if study is None else [study]:
        yield _history(optuna.load_study(study_name=name, storage=opened), metric, features)


def _opened(storage: str) -> optuna.storages.BaseStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if "://" not in storage:
        path = Path(storage)
        if not path.exists():
            raise InvalidHistory(f"{path}: no such journal file; a database is named by its URL, as sqlite:///{path}")
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    if storage.startswith("sqlite:///") and not Path(storage.removeprefix("sqlite:///")).exists():
        # The driver would make an empty one.
        raise InvalidHistory(f"{storage.removeprefix('sqlite:///')}: no such file")
    try:
        return optuna.storages.RDBStorage(storage)
    except Exception as error:
        raise InvalidHistory(f"{storage} cannot be opened: {error}") from error


def _history(study: optuna.Study, metric: str | None, features: Mapping[str, float | str]) -> Found:
    if len(study.directions) > 1:
        raise InvalidHistory(f"study {study.study_name!r} has {len(study.directions)} objectives; one is needed")
    goal = Goal.MAXIMIZE if study.direction.name == "MAXIMIZE" else Goal.MINIMIZE
    trials = study.get_trials(deepcopy=False)
    known: dict[str, AnyParameter] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            parameter = _parameter(name, distribution)
            if parameter is not None:
                known[name] = _wider(known.get(name), parameter)
    heading = Heading(study.study_name, metric or "value", goal, features)
    return history(heading, [_run(trial) for trial in trials], known)


def _parameter(name: str, distribution: optuna.distributions.BaseDistribution) -> AnyParameter | None:
    """None for one that can take a single value."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if distribution.single():
        return None
    if isinstance(distribution, FloatDistribution):
        return Float(name, distribution.low, distribution.high, log=distribution.log, step=distribution.step)
    if isinstance(distribution, IntDistribution):
        step = distribution.step if distribution.step > 1 else None
        return Int(name, distribution.low, distribution.high, log=distribution.log, step=step)
    assert isinstance(distribution, CategoricalDistribution)
    return Categorical(name, [_choice(choice) for choice in distribution.choices])


def _wider(before: AnyParameter | None, now: AnyParameter) -> AnyParameter:
    """What holds both: Optuna lets a range change from trial to trial."""
    if isinstance(before, Float) and isinstance(now, Float):
        step = now.step if before.step == now.step and before.low == now.low else None
        return Float(now.name, min(before.low, now.low), max(before.high, now.high), log=now.log, step=step)
    if isinstance(before, Int) and isinstance(now, Int):
        step = now.step if before.step == now.step and before.low == now.low else None
        return Int(now.name, min(before.low, now.low), max(before.high, now.high), log=now.log, step=step)
    return now


def _run(trial: optuna.trial.FrozenTrial) -> Run:
    settings = {name: _choice(value) for name, value in trial.params.items()}
    steps = sorted(trial.intermediate_values.items())
    curve = [value for _, value in steps]
    match trial.state.name:
        case "COMPLETE":
            return Run(settings, trial.values[0] if trial.values else None, curve)
        case "PRUNED" if curve:
            return Run(settings, curve[-1], curve, TrialState.STOPPED)
        case _:
            return Run(settings, None, curve, TrialState.FAILED)


def _choice(value: object) -> Scalar:
    """What is no number or word, None for one, by its text."""
    return value if isinstance(value, bool | int | float | str) else str(value)
