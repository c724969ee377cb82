"""Tidied experiments: those whose checkpoints that nothing refers to were deleted.

Revision ID: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UP = """\
ALTER TABLE experiments ADD COLUMN tidied_at TIMESTAMP WITH TIME ZONE;
CREATE INDEX ix_experiments_untidied ON experiments (finished_at)
    WHERE mode = 'managed' AND finished_at IS NOT NULL AND tidied_at IS NULL;
"""

_DOWN = """\
DROP INDEX ix_experiments_untidied;
ALTER TABLE experiments DROP COLUMN tidied_at;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
