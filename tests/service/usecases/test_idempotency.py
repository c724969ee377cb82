"""One effect for the same call: remembered for a day, forgotten with what failed, sealed when it holds a secret."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, update

from foretune.errors import IdempotencyConflict
from service.db.session import Database
from service.db.tables import idempotency_keys
from service.usecases import idempotency
from service.usecases.idempotency import Once, Remembered

if TYPE_CHECKING:
    from tests.conftest import Project

ONCE = Once("a-key", idempotency.fingerprint("POST", "/v1/experiments", b"{}"))


def call(database: Database, project: Project, body: str, once: Once = ONCE) -> Remembered | None:
    """A call whose effect is `body`: None when it is the first, else the first one's answer."""
    with database.transaction() as tx:
        remembered = idempotency.begin(tx, project.id, once)
        if remembered is None:
            idempotency.remember(tx, project.id, once, status=201, body=body)
        return remembered


def test_the_first_answer_is_remembered(database: Database, project: Project, other_project: Project) -> None:
    assert call(database, project, "first") is None
    assert call(database, project, "second") == Remembered(201, "first")
    assert call(database, other_project, "theirs") is None


@pytest.mark.parametrize(
    "other", [("PUT", "/v1/experiments", b"{}"), ("POST", "/v1/keys", b"{}"), ("POST", "/v1/experiments", b"{ }")]
)
def test_another_request_is_refused(database: Database, project: Project, other: tuple[str, str, bytes]) -> None:
    call(database, project, "first")
    with pytest.raises(IdempotencyConflict, match="'a-key'"):
        call(database, project, "second", Once(ONCE.key, idempotency.fingerprint(*other)))


def test_what_was_rolled_back_is_not_remembered(database: Database, project: Project) -> None:
    class Failed(Exception):
        pass

    def fail() -> None:
        with database.transaction() as tx:
            assert idempotency.begin(tx, project.id, ONCE) is None
            raise Failed

    with pytest.raises(Failed):
        fail()
    assert call(database, project, "second") is None


@pytest.mark.parametrize(("age", "forgotten"), [(timedelta(hours=23, minutes=59), False), (timedelta(hours=25), True)])
def test_a_day_later_the_key_is_new(database: Database, project: Project, age: timedelta, forgotten: bool) -> None:
    call(database, project, "first")
    with database.transaction() as tx:
        tx.connection.execute(update(idempotency_keys).values(created_at=func.now() - age))
    again = call(database, project, "second")
    assert (again is None) is forgotten
    assert call(database, project, "third") == Remembered(201, "second" if forgotten else "first")


@given(st.text(max_size=300), st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_only_its_secret_opens_a_seal(text: str, secret: str, other: str) -> None:
    sealed = idempotency.seal(text, secret)
    assert idempotency.unseal(sealed, secret) == text
    assert idempotency.seal(text, secret) != sealed
    if other != secret:
        assert idempotency.unseal(sealed, other) is None


@given(st.data())
def test_a_seal_that_was_touched_does_not_open(data: st.DataObject) -> None:
    sealed = idempotency.seal('{"key": "ft_secret"}', "bearer")
    position = data.draw(st.integers(0, len(sealed) - 1))
    character = data.draw(st.sampled_from("AZaz09+/=!"))
    touched = sealed[:position] + character + sealed[position + 1 :]
    # Base64 has spare bits at its end: what decodes to the same bytes is the same seal.
    assert idempotency.unseal(touched, "bearer") in (None, '{"key": "ft_secret"}')
    if position < len(sealed) - 4 and character != sealed[position]:
        assert idempotency.unseal(touched, "bearer") is None
