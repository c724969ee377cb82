"""The error tree: stable codes, messages that stand alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import foretune.errors
from foretune.errors import ForetuneError, InvalidRequest, LeaseLost, TooManyRequests, Unavailable, all_error_classes


@pytest.mark.parametrize("kind", all_error_classes())
def test_every_error_has_a_code_of_its_own_and_a_default_message(kind: type[ForetuneError]) -> None:
    error = kind()
    assert re.fullmatch(r"[a-z_]+", error.code)
    assert error.message == (kind.__doc__ or "").strip()
    assert [other for other in all_error_classes() if other.code == kind.code] == [kind]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Given the picture at the top of the file, each class stands under its parent."""
    # Others may raise classes of their own beside those of the file.
    classes = [kind for kind in all_error_classes() if kind.__module__ == foretune.errors.__name__]
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (foretune.errors.__doc__ or "").splitlines():
        found = re.match(r"^([\s│├└─]*)([A-Z]\w+)(\s|$)", line)
        if found is None or not line.startswith("    "):
            continue
        depth = (len(found[1]) - 4) // 4
        path = [*path[:depth], found[2]]
        drawn[found[2]] = path[-2] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__mro__[1].__name__ for kind in classes}


def test_an_error_says_what_happened() -> None:
    assert LeaseLost().message == "The lease on this trial is no longer yours; nothing was written."
    assert LeaseLost("gone", code="other").code == "other"
    assert LeaseLost.code == "lease_lost"
    assert str(InvalidRequest("x", errors=[])) == "x"
    assert TooManyRequests(retry_after_s=3.0).retry_after_s == 3.0
    assert Unavailable(retry_after_s=2.0, code="broker_away").code == "broker_away"


def test_errors_know_no_http() -> None:
    source = Path(foretune.errors.__file__).read_text()
    assert not re.search(r"\b(status|http|[45]\d\d)\b", source.partition('"""')[2].partition('"""')[2], re.IGNORECASE)
