"""Metric spaces of tasks: learned with a model, judged, and used by the experiments that began while it was in use.

Revision ID: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UP = """\
ALTER TABLE models ADD COLUMN space_folds JSONB;
ALTER TABLE models ADD COLUMN space_scores JSONB;
ALTER TABLE models ADD COLUMN space BYTEA;
COMMENT ON COLUMN models.space_folds IS 'while it is fitted: how its space of tasks did on the folds that are done';
COMMENT ON COLUMN models.space_scores IS 'how its space of tasks did on families left out, null: too few to learn one';
COMMENT ON COLUMN models.space IS 'its space of tasks in safetensors, null: tasks are compared by their features';
ALTER TABLE experiments ADD COLUMN model INTEGER;
COMMENT ON COLUMN experiments.model IS 'the version of the project''s model that was in use at submission';
"""

_DOWN = """\
ALTER TABLE experiments DROP COLUMN model;
ALTER TABLE models DROP COLUMN space;
ALTER TABLE models DROP COLUMN space_scores;
ALTER TABLE models DROP COLUMN space_folds;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
