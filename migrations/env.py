"""Alembic's entry: runs the migrations over the connection that `service.db.migrate` hands over, or prints their SQL.

One run at a time: whoever comes second waits for the advisory lock and then finds nothing left to do. A migration that
cannot get its table lock within some seconds fails rather than queueing every other query behind itself.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine, pool

from service.db.tables import metadata

_ADVISORY_LOCK = 7_391_046_215
_LOCK_TIMEOUT = "5s"


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        context.run_migrations()


def _run() -> None:
    config = context.config
    connection = config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
    elif context.is_offline_mode():
        context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
    else:
        from service.settings import settings

        engine = create_engine(settings().database_url, poolclass=pool.NullPool)
        with engine.connect() as opened:
            _migrate(opened)
        engine.dispose()


_run()
