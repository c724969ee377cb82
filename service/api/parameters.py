"""Path and query parameters that several endpoints share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

ExperimentId = Annotated[str, Path(description="`exp_…`", examples=["exp_7d2k0m3v5x8z1b4c6f9h0j"])]
TrialId = Annotated[str, Path(description="`tri_…`", examples=["tri_7d2k0m3v5x8z1b4c6f9h0j"])]
DatasetRef = Annotated[str, Path(description="Id or name of a data set.", examples=["digits"])]
Limit = Annotated[int, Query(ge=1, le=500, description="Most items on one page.")]
Cursor = Annotated[
    str | None, Query(max_length=500, description="`next` of the page before; absent for the first page.")
]
FIRST_PAGE = 50
