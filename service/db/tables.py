"""All tables. Postgres is the only truth: what is not here did not happen."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True))


projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    _now("created_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True, comment="SHA-256 of the key, hexadecimal"),
    _now("created_at"),
    _time("expires_at"),
    _time("revoked_at"),
    _time("last_used_at"),
    Index(None, "project_id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, comment="SHA-256 of method, path and body"),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("project_id", "key"),
    Index(None, "created_at"),
)

networks = Table(
    "networks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", JSONB, nullable=False, comment="as answered by GET /v1/networks"),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="what the workers can train, written by them when they start",
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), comment="null: built in, seen by all"),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False, comment="PARSING, READY or FAILED"),
    Column("error", JSONB, comment="why it failed: {code, message}"),
    Column("filename", Text, nullable=False),
    Column("target", Text),
    Column("requested_task", Text),
    Column("sha256", Text, nullable=False),
    Column("content_key", Text, nullable=False, comment="sha256 with target and task: same key, same dataset"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("artifact", Text, comment="the parsed form, in the artifact store"),
    Column("task", Text),
    Column("modality", Text),
    Column("views", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("rows", BigInteger),
    Column("features", BigInteger),
    Column("classes", BigInteger),
    Column("meta_features", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("warnings", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    _now("created_at"),
    UniqueConstraint("project_id", "content_key", postgresql_nulls_not_distinct=True),
    UniqueConstraint("project_id", "name", postgresql_nulls_not_distinct=True),
    Index("ix_datasets_parsing", "created_at", postgresql_where=text("state = 'PARSING'")),
)

experiments = Table(
    "experiments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("dataset_id", ForeignKey("datasets.id", ondelete="SET NULL")),
    Column("dataset_name", Text),
    Column("network", Text),
    Column("metric_name", Text, nullable=False),
    Column("goal", Text, nullable=False),
    Column("space", JSONB, nullable=False),
    Column("fixed", JSONB, nullable=False),
    Column("max_trials", Integer, nullable=False),
    Column("max_epochs", Integer, nullable=False),
    Column("max_total_epochs", BigInteger),
    Column("max_seconds", Double),
    Column("target", Double),
    Column("stopping", Text, nullable=False),
    Column("proposer", Text, nullable=False),
    Column("priors", JSONB, nullable=False),
    Column("parallelism", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("share_history", Boolean, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("features", JSONB, nullable=False),
    _now("created_at"),
    _time("started_at"),
    _time("finished_at"),
    Column("event_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("trials_created", Integer, nullable=False, server_default=text("0")),
    Column("trials_finished", Integer, nullable=False, server_default=text("0")),
    Column("trials_running", Integer, nullable=False, server_default=text("0")),
    Column("trials_queued", Integer, nullable=False, server_default=text("0")),
    Column("epochs", BigInteger, nullable=False, server_default=text("0")),
    Column("best_trial_id", Text),
    Column("best_value", Double),
    Column("best_epoch", Integer),
    _time("rung_at"),
    _time("compacted_at"),
    _time("tidied_at"),
    Column("model", Integer, comment="the version of the project's model that was in use at submission"),
    Column(
        "failed_shifts",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="by errors of our own, since the last epoch was measured",
    ),
    CheckConstraint("trials_created <= max_trials", name="budget"),
    Index(None, "project_id", "created_at", "id"),
    Index("ix_experiments_open", "state", postgresql_where=text("finished_at IS NULL")),
    Index("ix_experiments_dataset", "dataset_id"),
    Index(
        "ix_experiments_uncompacted",
        "project_id",
        "finished_at",
        postgresql_where=text("finished_at IS NOT NULL AND compacted_at IS NULL"),
    ),
    Index(
        "ix_experiments_untidied",
        "finished_at",
        postgresql_where=text("mode = 'managed' AND finished_at IS NOT NULL AND tidied_at IS NULL"),
    ),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("experiment_id", ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("configuration", JSONB, nullable=False, comment="a point of the space, as proposed"),
    Column("hyperparameters", JSONB, nullable=False, comment="with the fixed ones, without the schedule"),
    Column("lr_schedule", JSONB),
    Column("max_epochs", Integer, nullable=False),
    Column("origin", Text, nullable=False),
    Column("predicted", JSONB),
    Column("proposal", JSONB, nullable=False, comment="seed, index and last event seen: enough to replay it"),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="the fencing token"),
    Column("lease", Text, comment="the secret part of the lease"),
    _time("lease_until"),
    Column("worker", Text),
    Column("epochs", Integer, nullable=False, server_default=text("0")),
    Column("value", Double),
    Column("best_value", Double),
    Column("best_epoch", Integer),
    Column("seconds", Double, nullable=False, server_default=text("0")),
    Column("checkpoint", JSONB, comment="epoch and place of the newest checkpoint, and of the one before"),
    _now("created_at"),
    _time("started_at"),
    _time("finished_at"),
    Column("changed_seq", BigInteger, nullable=False, comment="the experiment's event number at its last change"),
    Column("result_seq", BigInteger, comment="the event number at which it finished: the order of results"),
    UniqueConstraint("experiment_id", "number"),
    Index(None, "experiment_id", "changed_seq"),
    Index(None, "experiment_id", "state"),
    Index("ix_trials_leased", "lease_until", postgresql_where=text("state = 'RUNNING'")),
)

measurements = Table(
    "measurements",
    metadata,
    Column("trial_id", ForeignKey("trials.id", ondelete="CASCADE"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("experiment_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="the event that announced it"),
    Column("value", Double, comment="null: not a number"),
    Column("seconds", Double),
    Column("metrics", JSONB, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("trial_id", "epoch"),
    Index(None, "experiment_id", "seq"),
)

events = Table(
    "events",
    metadata,
    Column("experiment_id", ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("experiment_id", "seq"),
)

histories = Table(
    "histories",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("fingerprint", Text, nullable=False, comment="SHA-256 of what it says, hexadecimal"),
    Column("experiment_id", ForeignKey("experiments.id", ondelete="CASCADE"), comment="null: imported"),
    Column("name", Text, nullable=False),
    Column("network", Text),
    Column("dataset_id", Text, comment="which data set it was, even when that is deleted"),
    Column("dataset_name", Text),
    Column("metric_name", Text, nullable=False),
    Column("goal", Text, nullable=False),
    Column("max_epochs", Integer, nullable=False),
    Column("space", JSONB, nullable=False),
    Column("fixed", JSONB, nullable=False),
    Column("features", JSONB, nullable=False, comment="numbers and words that describe the task"),
    Column("configurations", JSONB, nullable=False, comment="parameter -> its value in each trial, null: inactive"),
    Column("results", JSONB, nullable=False, comment="the best value of each trial, null: infeasible"),
    Column("states", JSONB, nullable=False),
    Column("seconds", JSONB, nullable=False),
    Column("curves", JSONB, nullable=False, comment="for each trial the values of every `curve_every`-th epoch"),
    Column("curve_every", Integer, nullable=False),
    Column("trials", Integer, nullable=False),
    Column("share", Boolean, nullable=False),
    Column("ended_at", DateTime(timezone=True), nullable=False, comment="later experiments learn from it"),
    _now("created_at"),
    PrimaryKeyConstraint("project_id", "fingerprint"),
    UniqueConstraint("experiment_id"),
    Index(None, "project_id", "ended_at"),
    Index(None, "project_id", "created_at"),
    comment="finished experiments as the meta-learner reads them: arrays, not rows",
)

models = Table(
    "models",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False, comment="FITTING, CHAMPION, RETIRED or REFUSED"),
    Column("parent", Integer, comment="the version that was in use when this one was fitted"),
    Column("histories", Integer, nullable=False),
    Column("trials", Integer, nullable=False),
    Column(
        "covers_until",
        DateTime(timezone=True),
        nullable=False,
        comment="when the newest history that it knows was written",
    ),
    Column("digest", Text, nullable=False, comment="SHA-256 of the fingerprints of its histories"),
    Column("fitted", Integer, nullable=False, comment="histories whose part of the fit is done"),
    Column("scores", JSONB, nullable=False, comment="mean regrets of its replay, by side"),
    Column("reason", Text, comment="why it was refused"),
    Column("again", Boolean, nullable=False, comment="whether histories that made another one lose are heard again"),
    Column("lease_until", DateTime(timezone=True), comment="when whoever fits it counts as dead"),
    _now("created_at"),
    _time("finished_at"),
    _time("promoted_at"),
    Column(
        "space_folds",
        JSONB(none_as_null=True),
        comment="while it is fitted: how its space of tasks did on the folds that are done",
    ),
    Column(
        "space_scores",
        JSONB(none_as_null=True),
        comment="how its space of tasks did on families left out, null: too few to learn one",
    ),
    Column(
        "space",
        LargeBinary,
        comment="its space of tasks in safetensors, null: tasks are compared by their features",
    ),
    PrimaryKeyConstraint("project_id", "version"),
    Index("uq_models_fitting", "project_id", unique=True, postgresql_where=text("state = 'FITTING'")),
    Index("uq_models_champion", "project_id", unique=True, postgresql_where=text("state = 'CHAMPION'")),
    comment="models of histories by project, with lineage and scores",
)

fitted_histories = Table(
    "fitted_histories",
    metadata,
    Column("project_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("kernel", JSONB, nullable=False),
    Column("residuals", JSONB, comment="where its outcomes fell in the others' forecasts, null: not held out"),
    Column("refused_by", Integer, comment="the version that it made lose: it is not heard"),
    PrimaryKeyConstraint("project_id", "fingerprint"),
    ForeignKeyConstraint(
        ["project_id", "fingerprint"], ["histories.project_id", "histories.fingerprint"], ondelete="CASCADE"
    ),
    comment="what was worked out of one history, once",
)

stopping_thresholds = Table(
    "stopping_thresholds",
    metadata,
    Column("experiment_id", ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, nullable=False, comment="the last event it had seen"),
    Column("thresholds", JSONB, nullable=False, comment="epoch -> the value below which a trial is stopped"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False, comment="train or desk"),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", Text),
    _now("started_at"),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
