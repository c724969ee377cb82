"""The Celery application: which tasks there are, where they are sent, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from service.bus.names import QUEUE_PROPOSE, TASK_QUEUES
from service.bus.tasks import celery_app
from service.embedded.children import DESK_QUEUES


def test_every_task_has_a_queue_that_a_worker_serves() -> None:
    program = (
        "import sys, workers.app, workers.tasks\n"
        "workers.app.app.finalize()\n"
        "print(sorted(name for name in workers.app.app.tasks if not name.startswith('celery.')))\n"
        "print(sorted({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    tasks, heavy = ran.stdout.splitlines()
    assert tasks == str(sorted(TASK_QUEUES))
    assert heavy == "[]", "only the processes that train pay for torch"
    served = {*DESK_QUEUES.split(","), "train"}
    assert set(TASK_QUEUES.values()) | {QUEUE_PROPOSE} <= served


@pytest.mark.usefixtures("environment")
class TestConfiguration:
    def test_no_task_outlives_a_visibility_timeout_into_a_second_life(self) -> None:
        conf = celery_app().conf
        assert conf.task_acks_late is False
        assert conf.task_ignore_result is True
        assert conf.worker_prefetch_multiplier == 1

    def test_a_child_has_time_to_import_torch(self) -> None:
        assert celery_app().conf.worker_proc_alive_timeout >= 60

    def test_a_broker_that_hangs_hangs_nobody(self) -> None:
        options = celery_app().conf.broker_transport_options
        assert options["socket_timeout"] <= 5
        assert options["socket_connect_timeout"] <= 5

    def test_beat_sends_upkeep_that_does_not_pile_up(self) -> None:
        (entry,) = celery_app().conf.beat_schedule.values()
        assert entry["task"] == "upkeep.sweep"
        assert entry["options"]["expires"] >= entry["schedule"]
