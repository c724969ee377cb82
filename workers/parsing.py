"""Uploads become data sets; built-in ones are published.

python -m workers.parsing             publishes the built-in ones where DATABASE_URL and ARTIFACTS_URL say
"""

from __future__ import annotations

import structlog

from foretune.errors import InvalidDataset, NotFound
from service.usecases import datasets as usecase
from service.usecases.datasets import ParsedDataset
from workers.datasets import dataset as canonical
from workers.datasets.builtin import BUILTIN_NAMES, load_builtin
from workers.datasets.dataset import Dataset
from workers.datasets.meta_features import meta_features
from workers.datasets.views import views
from workers.process import WorkerProcess, this_process

_log = structlog.get_logger(__name__)


def parse_dataset(process: WorkerProcess, dataset_id: str) -> None:
    """Parses an upload, keeps its canonical form, and tells what came out. Doing it twice is harmless."""
    from workers.datasets.parse import parse  # A desk imports the readers once it has signed in.

    with process.database.transaction() as tx:
        source = usecase.parsing_source(tx, dataset_id)
    if source is None:
        return
    try:
        with process.artifacts.local_copy(source.upload) as path:
            dataset = parse(path, source.filename, target=source.target, task=source.task, name=source.name)
    except InvalidDataset as error:
        _fail(process, dataset_id, error.code, error.message)
        return
    except NotFound as error:
        _fail(process, dataset_id, error.code, f"the uploaded file is gone: {error.message}")
        return
    except Exception as error:  # noqa: BLE001
        # Whatever a parser library raises is about this file: say so, and keep serving others.
        _log.exception("parsing_failed", dataset=dataset_id)
        _fail(process, dataset_id, "invalid_dataset", f"the file cannot be read: {type(error).__name__}: {error}")
        return
    process.artifacts.put_bytes(source.parsed, canonical.to_bytes(dataset))
    with process.database.transaction() as tx:
        kept = usecase.finish_parsing(tx, process.bus, dataset_id, _parsed(dataset, source.parsed))
    process.artifacts.delete(source.upload)
    if not kept:
        process.artifacts.delete(source.parsed)


def publish_builtins(process: WorkerProcess) -> None:
    """Keeps and publishes the built-in data sets that are not there yet."""
    with process.database.transaction() as tx:
        missing = usecase.missing_builtins(tx, BUILTIN_NAMES)
    for name in missing:
        dataset = load_builtin(name)
        key = usecase.builtin_key(name, dataset.content_hash)
        content = canonical.to_bytes(dataset)
        process.artifacts.put_bytes(key, content)
        with process.database.transaction() as tx:
            usecase.register_builtin(
                tx, name, _parsed(dataset, key), sha256=dataset.content_hash, size_bytes=len(content)
            )


def _fail(process: WorkerProcess, dataset_id: str, code: str, message: str) -> None:
    with process.database.transaction() as tx:
        usecase.fail_parsing(tx, process.bus, dataset_id, code, message)
    process.artifacts.delete(usecase.upload_key(dataset_id))


def _parsed(dataset: Dataset, key: str) -> ParsedDataset:
    return ParsedDataset(
        artifact=key,
        task=dataset.task,
        modality=dataset.modality,
        views=list(views(dataset)),
        rows=dataset.rows,
        features=dataset.features,
        classes=dataset.classes,
        target=dataset.target_name,
        meta_features=meta_features(dataset),
        warnings=list(dataset.warnings),
    )


if __name__ == "__main__":
    publish_builtins(this_process())
