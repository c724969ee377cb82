"""What a train worker makes of its settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from service.settings import Settings, settings
from workers.training import precision


@pytest.fixture(autouse=True)
def _settings_are_read_anew() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_the_precision_is_left_to_the_engine_unless_float32_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision() is None
    settings.cache_clear()
    monkeypatch.setenv("FORETUNE_PRECISION", "float32")
    assert precision() == "float32"


def test_other_precisions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETUNE_PRECISION", "bfloat16")
    with pytest.raises(ValidationError, match="foretune_precision"):
        Settings()
