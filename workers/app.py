"""The Celery application of a worker: `celery -A workers.app worker -Q train …`.

A *train* worker has one pool process a device, forked off before torch is imported (ADR 15). A *desk* worker
(`-Q propose,datasets,upkeep,meta -P threads`) answers calls, parses uploads, fits models of histories and does the
upkeep.
"""

from __future__ import annotations

from celery import Celery

import workers.signals  # noqa: F401 - connects them
from service.bus.tasks import celery_app

app: Celery = celery_app()
# Pool processes import these too.
app.conf.update(imports=("workers.signals", "workers.tasks"))
