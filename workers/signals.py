"""What happens when a worker starts and stops. Imported by its main process and by each pool process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

import structlog
from celery.platforms import EX_OK
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import state

from service.bus.names import QUEUE_PROPOSE
from service.db.migrate import wait_until_current
from service.garbage import exempt_what_is_there
from service.logs import configure_logging
from service.settings import settings
from workers.process import ask_to_drain, die_with_parent, forget_drain_file, name_drain_file, this_process

_NICE = 5
"""Whoever answers clients on the same cores goes first: an answer takes milliseconds, an epoch seconds."""
_log = structlog.get_logger(__name__)
_queues: set[str] = set()


@setup_logging.connect
def _set_up_logging(**_: object) -> None:
    configure_logging()


@celeryd_after_setup.connect
def _after_setup(instance: object, **_: object) -> None:
    _queues.update(instance.app.amqp.queues)  # type: ignore[attr-defined]
    name_drain_file()


@worker_ready.connect
def _ready(**_: object) -> None:
    """In the main process. Desk workers run their tasks here, in threads."""
    # Celery's own handlers are in place by now.
    signal.signal(signal.SIGTERM, _stop_gently)
    if QUEUE_PROPOSE not in _queues:
        return
    from workers.desk import Desk
    from workers.parsing import publish_builtins
    from workers.presence import keep_signing

    process = this_process()
    publish_builtins(process)
    Desk(process).start()
    keep_signing(process, "desk", device=None)
    _beside(_warm_up_desk)
    exempt_what_is_there()


@worker_process_init.connect
def _process_init(**_: object) -> None:
    """In a pool process: torch is imported before the first job comes."""
    die_with_parent()
    configure_logging()
    from workers.presence import keep_signing
    from workers.training import warm_up

    process = this_process()
    wait_until_current(settings().database_url, lambda why: _log.warning("waiting", reason=why))
    device = warm_up(process)
    if device == "cpu":
        os.nice(_NICE)
        _beside(_warm_up_training)
    keep_signing(process, "train", device=device)
    _beside(_warm_up_proposals)
    exempt_what_is_there()


def _warm_up_training() -> None:
    from workers.engine import compiled

    compiled.warm_up()


def _warm_up_desk() -> None:
    _warm_up_proposals()
    import workers.datasets.parse  # noqa: F401 - the first upload does not wait for its readers


def _warm_up_proposals() -> None:
    from metalearner import warming

    warming.warm_up()


def _beside(work: Callable[[], None]) -> None:
    """What nobody waits for but who asks at once; whatever else starts now goes first."""

    def run() -> None:
        if sys.platform == "linux":  # elsewhere it would be the whole process
            os.nice(_NICE)
        work()

    threading.Thread(target=run, name="beside", daemon=True).start()


def _stop_gently(*_: object) -> None:
    """SIGTERM: the pool hands back at its next epoch, and the worker ends as soon as it did.

    Celery's warm shutdown, whatever SIGTERM is remapped to: its soft one sleeps for its whole time before it tells
    anybody, and then kills what runs.
    """
    _shutting_down()
    state.should_stop = EX_OK


@worker_shutting_down.connect
def _shutting_down(**_: object) -> None:
    """Runs in a signal handler: tell the pool to hand back at the next epoch, and return."""
    ask_to_drain()
    if QUEUE_PROPOSE in _queues:
        # No daemon: the process may be through with everything else before this is.
        threading.Thread(target=_sign_off).start()


@worker_process_shutdown.connect
def _process_shutdown(**_: object) -> None:
    _sign_off()


@worker_shutdown.connect
def _shutdown(**_: object) -> None:
    forget_drain_file()


def _sign_off() -> None:
    from workers.presence import sign_off

    sign_off(this_process())
