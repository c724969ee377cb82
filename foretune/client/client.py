"""The door: one object that holds the connections and leads to everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from foretune.client.answers import Reply
from foretune.client.datasets import Datasets, Networks
from foretune.client.experiments import Experiments
from foretune.client.leases import Heartbeat
from foretune.client.recommendations import HistorySource, Knowledge
from foretune.client.settings import Settings, resolve
from foretune.client.stream import DEFAULT_PATIENCE_S
from foretune.client.transport import RetryPolicy, Transport
from foretune.client.trials import Trials
from foretune.errors import ForetuneError
from foretune.events import Event
from foretune.json_types import JsonObject, JsonValue
from foretune.metrics import Goal
from foretune.spaces import AnyParameter
from foretune.wire.experiments import Metric
from foretune.wire.recommendations import ImportAnswer, Recommendations
from foretune.wire.service import Health, Readiness


class Client:
    """A connection to a Foretune service. Thread-safe; use it as a context manager, or call `close`.

    `url` and `api_key` come from FORETUNE_URL and FORETUNE_API_KEY unless given, else from the local stack that
    `foretune up` started (http://127.0.0.1:8642, ~/.foretune/api_key). `timeout_s` bounds the wait for one answer.
    Lost connections, 429, 502, 503 and 504 are retried as `retry` says; nothing is ever created twice by that.

    Raises ConnectionFailed when the service cannot be reached, Unauthenticated without a valid key, and the classes
    of `foretune.errors` for what the service refuses.

    >>> with Client() as client:  # doctest: +SKIP
    ...     experiment = client.experiments.create(mode="managed", dataset="digits", network="mlp")
    ...     for event in client.stream(experiment.id):
    ...         print(event.type, event.data)
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.settings: Settings = resolve(url, api_key)
        self._transport = Transport(self.settings, timeout_s, retry or RetryPolicy())
        self._heartbeat = Heartbeat()
        self._knowledge = Knowledge(self._transport)
        self.datasets = Datasets(self._transport)
        self.networks = Networks(self._transport)
        self.experiments = Experiments(self._transport, self._heartbeat)
        self.trials = Trials(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the heartbeat and closes all connections. Trials that are still open are handed back."""
        self._heartbeat.close()
        self._transport.close()

    def __repr__(self) -> str:
        return f"<Client {self.settings.url}>"

    def stream(
        self,
        experiment_id: str,
        after: int = 0,
        *,
        give_up_after_s: float = DEFAULT_PATIENCE_S,
        on_interruption: Callable[[ForetuneError], None] | None = None,
    ) -> Iterator[Event]:
        """An experiment's events after number `after`, as they happen, until the one that finishes it.

        Each exactly once and in order, over any number of lost connections; `on_interruption` hears of each. Raises
        ConnectionFailed after `give_up_after_s` without contact, saying where to go on. Raises NotFound.
        """
        return self.experiments.stream(experiment_id, after, give_up_after_s, on_interruption)

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
        """Hyperparameters and a schedule for a task of which no trial has run, from what earlier experiments taught.

        The task is a `dataset` (id or name) or its `features`; what to tune is a `network` or a `space`.

        >>> client.recommend(dataset="digits", network="mlp").recommendations[0].hyperparameters  # doctest: +SKIP
        """
        return self._knowledge.recommend(
            dataset=dataset,
            features=features,
            network=network,
            space=space,
            metric=metric,
            max_epochs=max_epochs,
            count=count,
        )

    def import_histories(self, source: HistorySource) -> ImportAnswer:
        """Teaches the service finished experiments from elsewhere: a JSON-lines file, its content, or mappings.

        A line that is wrong is listed in the answer's `errors` and spoils no other. Importing twice is harmless.

        >>> client.import_histories("histories.jsonl").imported  # doctest: +SKIP
        153
        """
        return self._knowledge.import_histories(source)

    def metalearner(self) -> JsonObject:
        """The model in use: version, what it was fitted on, its replay score, what was refused and why."""
        return self._knowledge.metalearner()

    def fit_metalearner(self) -> JsonObject:
        """Starts a fit now; the new model is used if its replay is no worse. Refused histories get another chance."""
        return self._knowledge.fit_metalearner()

    def roll_back_metalearner(self, version: int) -> JsonObject:
        """Uses a retired model again. Raises NotFound, and Conflict for one that was refused."""
        return self._knowledge.roll_back_metalearner(version)

    def health(self) -> Health:
        """Whether the API is alive, and its version. Raises ConnectionFailed."""
        return self._transport.call("GET", "/healthz").as_model(Health)

    def readiness(self) -> Readiness:
        """Whether every part of the service answers, and which does not. Raises ConnectionFailed."""
        return self.probe("/readyz").as_model(Readiness)

    def probe(self, path: str, timeout_s: float = 5.0) -> Reply:
        """One GET without retries, whatever the answer's status: for diagnosis. Raises ConnectionFailed."""
        return self._transport.probe(path, timeout_s)
