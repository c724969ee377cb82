"""What the service has learned: recommendations, imported histories, the model in use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

from foretune.client.requests import checked, parameters_json
from foretune.client.transport import Payload, Transport, encode_json, segment
from foretune.errors import InvalidRequest, UnexpectedAnswer
from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.spaces import AnyParameter
from foretune.wire.experiments import Metric
from foretune.wire.recommendations import ImportAnswer, ImportFault, RecommendationRequest, Recommendations

HistorySource = str | PathLike[str] | bytes | Iterable[Mapping[str, JsonValue]]
_CHUNK_BYTES = 4 * 2**20
_IMPORT_TIMEOUT_S = 120.0


class Knowledge:
    """Behind `client.recommend`, `client.import_histories` and `client.metalearner`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def recommend(
        self,
        *,
        dataset: str | None = None,
        features: Mapping[str, float | str] | None = None,
        network: str | None = None,
        space: Sequence[AnyParameter | Mapping[str, JsonValue]] | None = None,
        metric: Metric | tuple[str, Goal | str] | None = None,
        max_epochs: int = 20,
        count: int = 3,
    ) -> Recommendations:
        """What to try before any trial of the task has run; see `Client.recommend`."""
        request = checked(
            RecommendationRequest,
            {
                "dataset": dataset,
                "features": None if features is None else dict(features),
                "network": network,
                "space": None if space is None else parameters_json(space),
                "metric": {"name": metric[0], "goal": metric[1]} if isinstance(metric, tuple) else metric,
                "max_epochs": max_epochs,
                "count": count,
            },
        )
        body = request.model_dump(mode="json", exclude_none=True)
        return self._transport.call("POST", "/v1/recommendations", json_body=body, creates=True).as_model(
            Recommendations
        )

    def of_experiment(self, experiment_id: str) -> Recommendations:
        """The same, given the experiment's own results."""
        path = f"/v1/experiments/{segment(experiment_id)}/recommendation"
        return self._transport.call("GET", path).as_model(Recommendations)

    def import_histories(self, source: HistorySource) -> ImportAnswer:
        """Sends finished experiments, one JSON object a line; see `Client.import_histories`."""
        imported = duplicates = 0
        faults: list[ImportFault] = []
        for first_line, chunk in _chunks(_lines(source)):
            answer = self._transport.send(
                "POST",
                "/v1/histories",
                Payload(chunk),
                headers={"content-type": "application/x-ndjson"},
                creates=True,
                timeout_s=_IMPORT_TIMEOUT_S,
            ).as_model(ImportAnswer)
            imported += answer.imported
            duplicates += answer.duplicates
            faults.extend(fault.model_copy(update={"line": fault.line + first_line - 1}) for fault in answer.errors)
        return ImportAnswer(imported=imported, duplicates=duplicates, errors=faults)

    def metalearner(self) -> JsonObject:
        """The model in use."""
        return _object(self._transport.call("GET", "/v1/metalearner").content)

    def fit_metalearner(self) -> JsonObject:
        """Starts a fit now."""
        return _object(self._transport.call("POST", "/v1/metalearner/fit", json_body={}, creates=True).content)

    def roll_back_metalearner(self, version: int) -> JsonObject:
        """Uses an earlier model again."""
        body: JsonObject = {"version": version}
        return _object(self._transport.call("POST", "/v1/metalearner/rollback", json_body=body, creates=True).content)


def _lines(source: HistorySource) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield from source.splitlines()
    elif isinstance(source, str | PathLike):
        try:
            with Path(source).open("rb") as file:
                for line in file:
                    yield line.rstrip(b"\r\n")
        except OSError as error:
            raise InvalidRequest(f"{source} cannot be read: {error.strerror or error}") from None
    else:
        for history in source:
            yield encode_json(history)


def _chunks(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Bodies of a few megabytes, each with the number of its first line; a longer line travels alone.

    Empty lines stay, so that the line numbers in an answer lead back to the file.
    """
    part: list[bytes] = []
    size, first = 0, 1
    for number, line in enumerate(lines, start=1):
        if part and size + len(line) > _CHUNK_BYTES:
            yield first, b"\n".join(part) + b"\n"
            part, size, first = [], 0, number
        part.append(line)
        size += len(line) + 1
    if any(part):
        yield first, b"\n".join(part) + b"\n"


def _object(content: bytes) -> JsonObject:
    try:
        value = json.loads(content) if content else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UnexpectedAnswer(f"the service's answer is no JSON object: {content[:100]!r}")
    return value
