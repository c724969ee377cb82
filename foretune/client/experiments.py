"""Experiments: submitting, listing, steering, exporting, and the calls behind each `Experiment`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, TypedDict, Unpack, get_args

from foretune.client import stream
from foretune.client.download import fetch, save
from foretune.client.experiment import Experiment, ExportFormat
from foretune.client.leases import Heartbeat
from foretune.client.paging import iterate
from foretune.client.recommendations import Knowledge
from foretune.client.requests import checked, parameters_json
from foretune.client.transport import Transport, segment
from foretune.client.trial import Trial
from foretune.client.trials import Trials
from foretune.errors import BudgetExhausted, ForetuneError, InvalidRequest
from foretune.events import Event
from foretune.json_types import JsonValue
from foretune.metrics import Goal
from foretune.spaces import AnyParameter
from foretune.states import ExperimentState, TrialState
from foretune.wire import experiments as wire
from foretune.wire import trials as trial_wire
from foretune.wire.base import Page
from foretune.wire.recommendations import Recommendations


class ExperimentFields(TypedDict, total=False):
    """The arguments of `client.experiments.create`; what is left out gets the service's default."""

    name: str
    mode: wire.Mode | str
    """`managed`: the service's workers train. `external`: this process trains, and asks and tells."""
    dataset: str
    """Id or name (managed)."""
    network: str
    metric: wire.Metric | tuple[str, Goal | str] | Mapping[str, JsonValue]
    """`("val_loss", "minimize")`"""
    space: Sequence[AnyParameter | Mapping[str, JsonValue]]
    fixed: Mapping[str, JsonValue]
    budget: wire.Budget | Mapping[str, JsonValue]
    stopping: wire.Stopping | str
    proposer: wire.Proposer | str
    priors: str | Sequence[str]
    parallelism: int
    seed: int
    share_history: bool
    labels: Mapping[str, str]
    features: Mapping[str, float | str]


class Experiments:
    """`client.experiments`."""

    def __init__(self, transport: Transport, heartbeat: Heartbeat) -> None:
        self._transport = transport
        self._heartbeat = heartbeat

    def create(
        self,
        request: wire.ExperimentRequest | Mapping[str, JsonValue] | None = None,
        **fields: Unpack[ExperimentFields],
    ) -> Experiment:
        """Submits an experiment: as keyword arguments, as a mapping shaped like the API's JSON, or as a model.

        Raises InvalidExperiment with every field that is wrong, NotFound for an unknown dataset or network.

        >>> client.experiments.create(mode="managed", dataset="digits", network="mlp")  # doctest: +SKIP
        >>> client.experiments.create(  # doctest: +SKIP
        ...     mode="external",
        ...     space=[Float("lr", 1e-5, 0.1, log=True), Int("layers", 1, 6)],
        ...     metric=("val_loss", "minimize"),
        ...     budget={"max_trials": 50, "max_epochs": 10},
        ... )
        """
        body = wire_request(request, fields).model_dump(mode="json", exclude_unset=True, exclude_none=True)
        reply = self._transport.call("POST", "/v1/experiments", json_body=body, creates=True)
        return Experiment(self, reply.as_model(wire.Experiment))

    def get(self, experiment_id: str) -> Experiment:
        """A handle on an experiment. Raises NotFound."""
        return Experiment(self, self.read(experiment_id))

    def list(
        self, *, state: ExperimentState | str | None = None, label: str | None = None, limit: int | None = None
    ) -> Iterator[Experiment]:
        """Experiments, newest first; `label` is `key:value`."""
        params = {"state": state, "label": label}
        for info in iterate(self._transport, "/v1/experiments", Page[wire.Experiment], params, limit):
            yield Experiment(self, info)

    def read(self, experiment_id: str) -> wire.Experiment:
        """What the service says about an experiment now. Raises NotFound."""
        return self._transport.call("GET", _path(experiment_id)).as_model(wire.Experiment)

    def pause(self, experiment_id: str) -> wire.Experiment:
        """No new epochs until `resume`. Raises IllegalTransition."""
        return self._steer(experiment_id, "pause")

    def resume(self, experiment_id: str) -> wire.Experiment:
        """Goes on after `pause`. Raises IllegalTransition."""
        return self._steer(experiment_id, "resume")

    def cancel(self, experiment_id: str) -> wire.Experiment:
        """Ends it now; all results stay. Raises IllegalTransition."""
        return self._steer(experiment_id, "cancel")

    def patch(
        self,
        experiment_id: str,
        *,
        name: str | None = None,
        budget: wire.BudgetPatch | Mapping[str, JsonValue] | None = None,
        space: Sequence[AnyParameter | Mapping[str, JsonValue]] | None = None,
        parallelism: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> wire.Experiment:
        """Raises a budget (None lifts a limit), widens the space, renames.

        Raises InvalidRequest for what would narrow, Conflict when the experiment is finished.
        """
        patch = checked(
            wire.ExperimentPatch,
            {
                "name": name,
                "budget": budget,
                "space": None if space is None else parameters_json(space),
                "parallelism": parallelism,
                "labels": None if labels is None else dict(labels),
            },
        )
        body = patch.model_dump(mode="json", exclude_none=True)
        if patch.budget is not None:
            # There null says something: no limit.
            body["budget"] = patch.budget.model_dump(mode="json", exclude_unset=True)
        return self._transport.call("PATCH", _path(experiment_id), json_body=body).as_model(wire.Experiment)

    def delete(self, experiment_id: str) -> None:
        """Deletes a finished experiment. Raises Conflict while it is not finished."""
        self._transport.call("DELETE", _path(experiment_id))

    def stream(
        self,
        experiment_id: str,
        after: int = 0,
        give_up_after_s: float = stream.DEFAULT_PATIENCE_S,
        on_interruption: Callable[[ForetuneError], None] | None = None,
    ) -> Iterator[Event]:
        """The experiment's events after number `after`; see `Client.stream`."""
        return stream.events(
            self._transport,
            experiment_id,
            after=after,
            give_up_after_s=give_up_after_s,
            on_interruption=on_interruption,
        )

    def list_trials(self, experiment_id: str, state: TrialState | str | None = None) -> Iterator[trial_wire.Trial]:
        """The experiment's trials in order of creation."""
        return Trials(self._transport).list(experiment_id, state=state)

    def recommendation(self, experiment_id: str) -> Recommendations:
        """Given the experiment's own results: best seen and best predicted."""
        return Knowledge(self._transport).of_experiment(experiment_id)

    def export(
        self,
        experiment_id: str,
        path: str | PathLike[str],
        format: ExportFormat | None = None,  # noqa: A002
    ) -> Path:
        """Saves all trials as CSV, as Parquet with their curves or as JSON lines with their measurements.

        The file's ending chooses unless given.
        """
        target = Path(path)
        chosen = _export_format(format or target.suffix.removeprefix("."))
        return save(self._transport, f"{_path(experiment_id)}/export", target, {"format": chosen})

    def export_to(self, experiment_id: str, file: IO[bytes], format: ExportFormat) -> None:  # noqa: A002
        """Writes the same to an open file, standard output for example, once it has arrived whole."""
        with tempfile.TemporaryFile() as whole:
            fetch(self._transport, f"{_path(experiment_id)}/export", whole, {"format": _export_format(format)})
            whole.seek(0)
            shutil.copyfileobj(whole, file)
        file.flush()

    def ask(self, experiment_id: str, count: int, wait_s: float) -> Sequence[Trial]:
        """Leases up to `count` new trials. Raises BudgetExhausted."""
        reply = self._transport.call(
            "POST",
            f"{_path(experiment_id)}/suggestions",
            json_body={"count": count, "wait_seconds": wait_s},
            creates=True,
            timeout_s=wait_s,
        )
        suggestions = reply.as_model(trial_wire.Suggestions)
        if not suggestions.trials:
            raise BudgetExhausted(f"{experiment_id} is finished: it has no trial to give")
        return [Trial(self._transport, self._heartbeat, one, reply) for one in suggestions.trials]

    def _steer(self, experiment_id: str, verb: str) -> wire.Experiment:
        reply = self._transport.call("POST", f"{_path(experiment_id)}/{verb}", creates=True)
        return reply.as_model(wire.Experiment)


def wire_request(
    request: wire.ExperimentRequest | Mapping[str, JsonValue] | None, fields: ExperimentFields
) -> wire.ExperimentRequest:
    """The request that the arguments of `create` describe; fields win over what `request` holds."""
    if isinstance(request, wire.ExperimentRequest):
        if not fields:
            return request
        request = request.model_dump(mode="json", exclude_unset=True)
    body: dict[str, object] = {**(request or {}), **fields}
    metric, space = fields.get("metric"), fields.get("space")
    if isinstance(metric, tuple):
        body["metric"] = {"name": metric[0], "goal": metric[1]}
    if space is not None:
        body["space"] = parameters_json(space)
    return checked(wire.ExperimentRequest, body)


def _export_format(text: str) -> str:
    if text not in get_args(ExportFormat):
        raise InvalidRequest(f"the format must be one of {', '.join(get_args(ExportFormat))}, not {text!r}")
    return text


def _path(experiment_id: str) -> str:
    return f"/v1/experiments/{segment(experiment_id)}"
