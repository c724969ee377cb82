"""Models of histories: what was fitted, how it was judged, and which one is in use.

Revision ID: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UP = """\
CREATE INDEX ix_histories_project_id_created_at ON histories (project_id, created_at);
CREATE TABLE models (
    project_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    parent INTEGER,
    histories INTEGER NOT NULL,
    trials INTEGER NOT NULL,
    covers_until TIMESTAMP WITH TIME ZONE NOT NULL,
    digest TEXT NOT NULL,
    fitted INTEGER NOT NULL,
    scores JSONB NOT NULL,
    reason TEXT,
    again BOOLEAN NOT NULL,
    lease_until TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    promoted_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_models PRIMARY KEY (project_id, version),
    CONSTRAINT fk_models_project_id_projects FOREIGN KEY (project_id) REFERENCES projects (id) ON DELETE CASCADE
);
COMMENT ON TABLE models IS 'models of histories by project, with lineage and scores';
COMMENT ON COLUMN models.state IS 'FITTING, CHAMPION, RETIRED or REFUSED';
COMMENT ON COLUMN models.parent IS 'the version that was in use when this one was fitted';
COMMENT ON COLUMN models.covers_until IS 'when the newest history that it knows was written';
COMMENT ON COLUMN models.digest IS 'SHA-256 of the fingerprints of its histories';
COMMENT ON COLUMN models.fitted IS 'histories whose part of the fit is done';
COMMENT ON COLUMN models.scores IS 'mean regrets of its replay, by side';
COMMENT ON COLUMN models.reason IS 'why it was refused';
COMMENT ON COLUMN models.again IS 'whether histories that made another one lose are heard again';
COMMENT ON COLUMN models.lease_until IS 'when whoever fits it counts as dead';
CREATE UNIQUE INDEX uq_models_fitting ON models (project_id) WHERE state = 'FITTING';
CREATE UNIQUE INDEX uq_models_champion ON models (project_id) WHERE state = 'CHAMPION';
CREATE TABLE fitted_histories (
    project_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    kernel JSONB NOT NULL,
    residuals JSONB,
    refused_by INTEGER,
    CONSTRAINT pk_fitted_histories PRIMARY KEY (project_id, fingerprint),
    CONSTRAINT fk_fitted_histories_project_id_histories FOREIGN KEY (project_id, fingerprint)
        REFERENCES histories (project_id, fingerprint) ON DELETE CASCADE
);
COMMENT ON TABLE fitted_histories IS 'what was worked out of one history, once';
COMMENT ON COLUMN fitted_histories.residuals IS 'where its outcomes fell in the others'' forecasts, null: not held out';
COMMENT ON COLUMN fitted_histories.refused_by IS 'the version that it made lose: it is not heard';
"""

_DOWN = """\
DROP TABLE fitted_histories;
DROP TABLE models;
DROP INDEX ix_histories_project_id_created_at;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
