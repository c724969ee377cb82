"""Cursors: what a page gave is understood, anything else is refused as the client's mistake."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import InvalidRequest
from service.usecases.paging import read_moment, read_number, write_cursor

MOMENTS = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


@given(st.integers(0, 2**31 - 1))
def test_a_number_comes_back(number: int) -> None:
    assert read_number(write_cursor(number)) == number


@given(MOMENTS, IDS)
def test_a_moment_comes_back_to_the_microsecond(moment: datetime, identity: str) -> None:
    assert read_moment(write_cursor((moment, identity)), "") == (moment, identity)


def test_a_moment_of_another_zone_is_the_same_moment() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    read = read_moment(write_cursor((moment, "exp_1")), "")
    assert read == (moment, "exp_1")


def test_the_first_page_needs_none() -> None:
    assert read_number(None) == 0
    assert read_moment(None, "") is None


def test_a_cursor_stands_in_a_url_as_it_is() -> None:
    cursor = write_cursor((datetime(2026, 1, 1, tzinfo=UTC), "exp_~ü🚀>>>???"))
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "not a cursor",
        "ü",
        "\x00",
        encoded(None),
        encoded(True),
        encoded(-1),
        encoded(2**31),
        encoded(1.5),
        encoded("5"),
        encoded([]),
        encoded({}),
        encoded(["2026-01-01"]),
        encoded(["yesterday", "exp_1"]),
        encoded(["2026-01-01T00:00:00", "exp_1"]),
        encoded(["2026-01-01T00:00:00+00:00", "a\x00"]),
        encoded(["2026-01-01T00:00:00+00:00", 5]),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    ],
)
def test_anything_else_is_refused(cursor: str) -> None:
    for read in (read_number, partial(read_moment, prefix="")):
        with pytest.raises(InvalidRequest) as caught:
            read(cursor)
        assert caught.value.errors[0].loc == ("query", "cursor")


@given(st.text(max_size=60))
def test_no_text_brings_it_down(text: str) -> None:
    for read in (read_number, partial(read_moment, prefix="")):
        try:
            read(text)
        except InvalidRequest:
            continue


def test_the_cursor_of_another_list_is_refused() -> None:
    cursor = write_cursor((datetime(2026, 1, 1, tzinfo=UTC), "dst_1"))
    assert read_moment(cursor, "dst_") is not None
    with pytest.raises(InvalidRequest, match="is not a cursor that a page of this list gave"):
        read_moment(cursor, "exp_")
