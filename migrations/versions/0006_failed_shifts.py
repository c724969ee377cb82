"""Experiments count the shifts that failed on them in a row: one that always fails ends with a reason.

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
COMMENT ON COLUMN experiments.failed_shifts IS 'by errors of our own, since the last epoch was measured';
"""

_DOWN = """\
ALTER TABLE experiments DROP COLUMN failed_shifts;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
