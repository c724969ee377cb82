"""Datasets and networks: what can be trained on, and what can be trained."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from foretune.client.answers import Reply
from foretune.client.paging import iterate
from foretune.client.transport import Payload, Transport, segment
from foretune.errors import ClientError, InvalidDataset, InvalidRequest, NotFound
from foretune.wire.base import Answer, Page
from foretune.wire.datasets import Dataset, DatasetState, Neighbours, Network, PendingDataset, Task

_UPLOAD_TIMEOUT_S = 600.0
_READING_TIMEOUT_S = 600.0


class Datasets:
    """`client.datasets`: the datasets of this project and those built in."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, limit: int | None = None) -> Iterator[Dataset]:
        """All datasets, page by page.

        >>> [dataset.name for dataset in client.datasets.list()]  # doctest: +SKIP
        ['digits', 'breast_cancer', 'wine', 'iris', 'diabetes']
        """
        return iterate(self._transport, "/v1/datasets", Page[Dataset], limit=limit)

    def get(self, id_or_name: str) -> Dataset:
        """One dataset. Raises NotFound."""
        return self._transport.call("GET", f"/v1/datasets/{segment(id_or_name)}").as_model(Dataset)

    def upload(
        self,
        source: str | PathLike[str] | tuple[str, bytes],
        *,
        name: str | None = None,
        target: str | None = None,
        task: Task | str | None = None,
    ) -> Dataset:
        """Uploads a CSV, Parquet, NPZ or text file, or its content as `(file name, bytes)`.

        `name` is the file's name without its ending unless given; `target` is the column to predict; `task` is
        guessed unless given. The same file twice is one dataset. Raises InvalidDataset with what is wrong, TooLarge.

        >>> client.datasets.upload("churn.csv", target="left", task="classification")  # doctest: +SKIP
        """
        if isinstance(source, tuple):
            file_name, content = source
            return self._send(file_name, io.BytesIO(content), name, target, task)
        path = Path(source)
        try:
            file = path.open("rb")
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from None
        with file:
            return self._send(path.name, file, name, target, task)

    def neighbours(self, id_or_name: str, *, network: str | None = None, limit: int = 10) -> Neighbours:
        """The prior tasks most like a dataset, and why. Raises NotFound."""
        asked = f"?limit={limit}" + ("" if network is None else f"&network={segment(network)}")
        path = f"/v1/datasets/{segment(id_or_name)}/neighbours{asked}"
        return self._transport.call("GET", path).as_model(Neighbours)

    def delete(self, id_or_name: str) -> None:
        """Deletes a dataset. Raises Conflict while an unfinished experiment uses it."""
        self._transport.call("DELETE", f"/v1/datasets/{segment(id_or_name)}")

    def _send(
        self,
        file_name: str,
        file: io.BufferedReader | io.BytesIO,
        name: str | None,
        target: str | None,
        task: Task | str | None,
    ) -> Dataset:
        fields = {"name": name or Path(file_name).stem}
        if target is not None:
            fields["target"] = target
        if task is not None:
            fields["task"] = str(task)
        # One boundary for all retries: the idempotency key stands for exactly these bytes.
        content_type = f"multipart/form-data; boundary={secrets.token_hex(16)}"
        reply = self._transport.send(
            "POST",
            "/v1/datasets",
            Payload(fields=fields, file=(file_name, file)),
            headers={"content-type": content_type},
            creates=True,
            timeout_s=_UPLOAD_TIMEOUT_S,
        )
        return self._when_read(reply)

    def _when_read(self, reply: Reply) -> Dataset:
        """The dataset, as soon as a worker has read its file. Raises InvalidDataset with what is wrong with it."""
        deadline, wait_s = time.monotonic() + _READING_TIMEOUT_S, 0.05
        while True:
            state = reply.as_model(_State)
            if state.state in (None, DatasetState.READY):
                return reply.as_model(Dataset)
            pending = reply.as_model(PendingDataset)
            if pending.state is DatasetState.FAILED:
                fault = pending.error
                raise InvalidDataset(fault.message if fault else None, code=fault.code if fault else None)
            if time.monotonic() + wait_s > deadline:
                raise ClientError(f"{pending.id} was uploaded, but no worker has read it yet: is one running?")
            time.sleep(wait_s)
            wait_s = min(1.0, 1.5 * wait_s)
            reply = self._transport.call("GET", f"/v1/datasets/{segment(pending.id)}")


class _State(Answer):
    state: DatasetState | None = None


class Networks:
    """`client.networks`: the base networks that the service's workers can train."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Network]:
        """Every network with its tasks and default search space."""
        return iterate(self._transport, "/v1/networks", Page[Network])

    def get(self, name: str) -> Network:
        """One network. Raises NotFound, naming those that there are."""
        networks = {network.name: network for network in self.list()}
        if name not in networks:
            raise NotFound(f"there is no network {name!r}; there are {', '.join(sorted(networks))}")
        return networks[name]
