"""How large an upload may be. Checked before anything big is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from foretune.errors import InvalidDataset

MIN_ROWS = 4
"""Two rows to train on and two to validate on; below that no score means anything."""

MAX_CLASSES = 1000
"""A classification target with more distinct values is refused: it is an id or a quantity."""

MIN_CHARACTERS = 1000
"""The shortest text that a language model is trained on."""

MIN_IMAGE_SIDE = 8
"""The smallest height and width, in pixels, that counts as an image."""


@dataclass(frozen=True)
class DatasetLimits:
    """Upper limits of one uploaded file. `cells` counts every number of X, whatever its shape."""

    size_bytes: int = 100 * 2**20
    rows: int = 1_000_000
    columns: int = 5_000
    cells: int = 50_000_000

    def check_size(self, size_bytes: int) -> None:
        """Raises InvalidDataset when the file is empty or larger than allowed."""
        if size_bytes == 0:
            raise InvalidDataset("the file is empty (0 bytes)")
        if size_bytes > self.size_bytes:
            raise InvalidDataset(f"the file has {size_bytes:,} bytes; at most {self.size_bytes:,} are allowed")

    def check_table(self, rows: int, columns: int) -> None:
        """Raises InvalidDataset when a table has too few or too many rows, columns or cells."""
        if columns > self.columns:
            raise InvalidDataset(f"the table has {columns:,} columns; at most {self.columns:,} are allowed")
        check_enough_rows(rows)
        if rows > self.rows:
            raise InvalidDataset(f"the file has {rows:,} rows; at most {self.rows:,} are allowed")
        self.check_cells(rows * columns)

    def check_cells(self, cells: int) -> None:
        """Raises InvalidDataset when X would hold more numbers than allowed."""
        if cells > self.cells:
            raise InvalidDataset(f"the data have {cells:,} cells; at most {self.cells:,} are allowed")


def check_enough_rows(rows: int) -> None:
    """Raises InvalidDataset when there are fewer than `MIN_ROWS` rows."""
    if rows < MIN_ROWS:
        found = {0: "no data rows", 1: "only one data row"}.get(rows, f"only {rows} data rows")
        raise InvalidDataset(f"the file has {found}; at least {MIN_ROWS} are needed")
