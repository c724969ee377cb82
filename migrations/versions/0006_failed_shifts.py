"""Experiments count the shifts that failed on them in a row; trials know their newest two checkpoints.

Revision ID: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UP = """\
ALTER TABLE experiments ADD COLUMN failed_shifts INTEGER DEFAULT 0 NOT NULL;
COMMENT ON COLUMN trials.checkpoint IS 'epoch and place of the newest checkpoint, and of the one before';
COMMENT ON COLUMN experiments.failed_shifts IS 'by errors of our own, since the last epoch was measured';
"""

_DOWN = """\
COMMENT ON COLUMN trials.checkpoint IS 'epoch and place of the newest checkpoint';
ALTER TABLE experiments DROP COLUMN failed_shifts;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
