"""Everything to begin with: projects and keys, datasets and networks, experiments, trials and their events.

Revision ID: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_UP = """\
CREATE TABLE networks (
    name TEXT NOT NULL,
    description JSONB NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_networks PRIMARY KEY (name)
);
COMMENT ON TABLE networks IS 'what the workers can train, written by them when they start';
COMMENT ON COLUMN networks.description IS 'as answered by GET /v1/networks';

CREATE TABLE projects (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_projects PRIMARY KEY (id),
    CONSTRAINT uq_projects_name UNIQUE (name)
);

CREATE TABLE workers (
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    device TEXT,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_workers PRIMARY KEY (id)
);
COMMENT ON COLUMN workers.kind IS 'train or desk';

CREATE TABLE api_keys (
    id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT fk_api_keys_project_id_projects FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
CREATE INDEX ix_api_keys_project_id ON api_keys (project_id);
COMMENT ON COLUMN api_keys.digest IS 'SHA-256 of the key, hexadecimal';

CREATE TABLE datasets (
    id TEXT NOT NULL,
    project_id TEXT,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    error JSONB,
    filename TEXT NOT NULL,
    target TEXT,
    requested_task TEXT,
    sha256 TEXT NOT NULL,
    content_key TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    artifact TEXT,
    task TEXT,
    modality TEXT,
    views JSONB DEFAULT '[]'::jsonb NOT NULL,
    rows BIGINT,
    features BIGINT,
    classes BIGINT,
    meta_features JSONB DEFAULT '{}'::jsonb NOT NULL,
    warnings JSONB DEFAULT '[]'::jsonb NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_datasets PRIMARY KEY (id),
    CONSTRAINT uq_datasets_project_id_content_key UNIQUE NULLS NOT DISTINCT (project_id, content_key),
    CONSTRAINT uq_datasets_project_id_name UNIQUE NULLS NOT DISTINCT (project_id, name),
    CONSTRAINT fk_datasets_project_id_projects FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);
CREATE INDEX ix_datasets_parsing ON datasets (created_at) WHERE state = 'PARSING';
COMMENT ON COLUMN datasets.project_id IS 'null: built in, seen by all';
COMMENT ON COLUMN datasets.state IS 'PARSING, READY or FAILED';
COMMENT ON COLUMN datasets.error IS 'why it failed: {code, message}';
COMMENT ON COLUMN datasets.content_key IS 'sha256 with target and task: same key, same dataset';
COMMENT ON COLUMN datasets.artifact IS 'the parsed form, in the artifact store';

CREATE TABLE idempotency_keys (
    project_id TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (project_id, key),
    CONSTRAINT fk_idempotency_keys_project_id_projects
        FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 of method, path and body';

CREATE TABLE experiments (
    id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    mode TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    dataset_id TEXT,
    dataset_name TEXT,
    network TEXT,
    metric_name TEXT NOT NULL,
    goal TEXT NOT NULL,
    space JSONB NOT NULL,
    fixed JSONB NOT NULL,
    max_trials INTEGER NOT NULL,
    max_epochs INTEGER NOT NULL,
    max_total_epochs BIGINT,
    max_seconds DOUBLE PRECISION,
    target DOUBLE PRECISION,
    stopping TEXT NOT NULL,
    proposer TEXT NOT NULL,
    priors JSONB NOT NULL,
    parallelism INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    share_history BOOLEAN NOT NULL,
    labels JSONB NOT NULL,
    features JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    event_seq BIGINT DEFAULT 0 NOT NULL,
    trials_created INTEGER DEFAULT 0 NOT NULL,
    trials_finished INTEGER DEFAULT 0 NOT NULL,
    trials_running INTEGER DEFAULT 0 NOT NULL,
    trials_queued INTEGER DEFAULT 0 NOT NULL,
    epochs BIGINT DEFAULT 0 NOT NULL,
    best_trial_id TEXT,
    best_value DOUBLE PRECISION,
    best_epoch INTEGER,
    rung_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_experiments PRIMARY KEY (id),
    CONSTRAINT ck_experiments_budget CHECK (trials_created <= max_trials),
    CONSTRAINT fk_experiments_project_id_projects FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT fk_experiments_dataset_id_datasets FOREIGN KEY(dataset_id) REFERENCES datasets (id) ON DELETE SET NULL
);
CREATE INDEX ix_experiments_dataset ON experiments (dataset_id);
CREATE INDEX ix_experiments_open ON experiments (state) WHERE finished_at IS NULL;
CREATE INDEX ix_experiments_project_id_created_at_id ON experiments (project_id, created_at, id);

CREATE TABLE events (
    experiment_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    type TEXT NOT NULL,
    data JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (experiment_id, seq),
    CONSTRAINT fk_events_experiment_id_experiments
        FOREIGN KEY(experiment_id) REFERENCES experiments (id) ON DELETE CASCADE
);

CREATE TABLE stopping_thresholds (
    experiment_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    thresholds JSONB NOT NULL,
    CONSTRAINT pk_stopping_thresholds PRIMARY KEY (experiment_id),
    CONSTRAINT fk_stopping_thresholds_experiment_id_experiments
        FOREIGN KEY(experiment_id) REFERENCES experiments (id) ON DELETE CASCADE
);
COMMENT ON COLUMN stopping_thresholds.seq IS 'the last event it had seen';
COMMENT ON COLUMN stopping_thresholds.thresholds IS 'epoch -> the value below which a trial is stopped';

CREATE TABLE trials (
    id TEXT NOT NULL,
    experiment_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    configuration JSONB NOT NULL,
    hyperparameters JSONB NOT NULL,
    lr_schedule JSONB,
    max_epochs INTEGER NOT NULL,
    origin TEXT NOT NULL,
    predicted JSONB,
    proposal JSONB NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    lease TEXT,
    lease_until TIMESTAMP WITH TIME ZONE,
    worker TEXT,
    epochs INTEGER DEFAULT 0 NOT NULL,
    value DOUBLE PRECISION,
    best_value DOUBLE PRECISION,
    best_epoch INTEGER,
    seconds DOUBLE PRECISION DEFAULT 0 NOT NULL,
    checkpoint JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    changed_seq BIGINT NOT NULL,
    result_seq BIGINT,
    CONSTRAINT pk_trials PRIMARY KEY (id),
    CONSTRAINT uq_trials_experiment_id_number UNIQUE (experiment_id, number),
    CONSTRAINT fk_trials_experiment_id_experiments
        FOREIGN KEY(experiment_id) REFERENCES experiments (id) ON DELETE CASCADE
);
CREATE INDEX ix_trials_experiment_id_changed_seq ON trials (experiment_id, changed_seq);
CREATE INDEX ix_trials_experiment_id_state ON trials (experiment_id, state);
CREATE INDEX ix_trials_leased ON trials (lease_until) WHERE state = 'RUNNING';
COMMENT ON COLUMN trials.configuration IS 'a point of the space, as proposed';
COMMENT ON COLUMN trials.hyperparameters IS 'with the fixed ones, without the schedule';
COMMENT ON COLUMN trials.proposal IS 'seed, index and last event seen: enough to replay it';
COMMENT ON COLUMN trials.attempts IS 'the fencing token';
COMMENT ON COLUMN trials.lease IS 'the secret part of the lease';
COMMENT ON COLUMN trials.checkpoint IS 'epoch and place of the newest checkpoint';
COMMENT ON COLUMN trials.changed_seq IS 'the experiment''s event number at its last change';
COMMENT ON COLUMN trials.result_seq IS 'the event number at which it finished: the order of results';

CREATE TABLE measurements (
    trial_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    experiment_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    value DOUBLE PRECISION,
    seconds DOUBLE PRECISION,
    metrics JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_measurements PRIMARY KEY (trial_id, epoch),
    CONSTRAINT fk_measurements_trial_id_trials FOREIGN KEY(trial_id) REFERENCES trials (id) ON DELETE CASCADE
);
CREATE INDEX ix_measurements_experiment_id_seq ON measurements (experiment_id, seq);
COMMENT ON COLUMN measurements.seq IS 'the event that announced it';
COMMENT ON COLUMN measurements.value IS 'null: not a number';
"""

_DOWN = """\
DROP TABLE
    measurements,
    trials,
    stopping_thresholds,
    events,
    experiments,
    idempotency_keys,
    datasets,
    api_keys,
    workers,
    projects,
    networks;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
