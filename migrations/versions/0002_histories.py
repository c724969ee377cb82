"""Histories: finished experiments as arrays, which later experiments learn from.

Revision ID: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UP = """\
ALTER TABLE experiments ADD COLUMN compacted_at TIMESTAMP WITH TIME ZONE;
CREATE INDEX ix_experiments_uncompacted ON experiments (project_id, finished_at)
    WHERE finished_at IS NOT NULL AND compacted_at IS NULL;

CREATE TABLE histories (
    project_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    experiment_id TEXT,
    name TEXT NOT NULL,
    network TEXT,
    dataset_id TEXT,
    dataset_name TEXT,
    metric_name TEXT NOT NULL,
    goal TEXT NOT NULL,
    max_epochs INTEGER NOT NULL,
    space JSONB NOT NULL,
    fixed JSONB NOT NULL,
    features JSONB NOT NULL,
    configurations JSONB NOT NULL,
    results JSONB NOT NULL,
    states JSONB NOT NULL,
    seconds JSONB NOT NULL,
    curves JSONB NOT NULL,
    curve_every INTEGER NOT NULL,
    trials INTEGER NOT NULL,
    share BOOLEAN NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_histories PRIMARY KEY (project_id, fingerprint),
    CONSTRAINT uq_histories_experiment_id UNIQUE (experiment_id),
    CONSTRAINT fk_histories_project_id_projects FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE,
    CONSTRAINT fk_histories_experiment_id_experiments
        FOREIGN KEY(experiment_id) REFERENCES experiments (id) ON DELETE CASCADE
);
CREATE INDEX ix_histories_project_id_ended_at ON histories (project_id, ended_at);
COMMENT ON TABLE histories IS 'finished experiments as the meta-learner reads them: arrays, not rows';
COMMENT ON COLUMN histories.fingerprint IS 'SHA-256 of what it says, hexadecimal';
COMMENT ON COLUMN histories.experiment_id IS 'null: imported';
COMMENT ON COLUMN histories.dataset_id IS 'which data set it was, even when that is deleted';
COMMENT ON COLUMN histories.features IS 'numbers and words that describe the task';
COMMENT ON COLUMN histories.configurations IS 'parameter -> its value in each trial, null: inactive';
COMMENT ON COLUMN histories.results IS 'the best value of each trial, null: infeasible';
COMMENT ON COLUMN histories.curves IS 'for each trial the values of every `curve_every`-th epoch';
COMMENT ON COLUMN histories.ended_at IS 'later experiments learn from it';
"""

_DOWN = """\
DROP TABLE histories;
DROP INDEX ix_experiments_uncompacted;
ALTER TABLE experiments DROP COLUMN compacted_at;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
