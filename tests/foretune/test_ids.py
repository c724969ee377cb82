"""Ids: a prefix, 22 characters nobody confuses, in the order of their making."""

from __future__ import annotations

import re
import time
from typing import get_args

import pytest

from foretune.ids import Prefix, new_id


@pytest.mark.parametrize("prefix", get_args(Prefix))
def test_an_id_is_a_prefix_and_plain_characters(prefix: Prefix) -> None:
    assert re.fullmatch(rf"{prefix}_[0-9abcdefghjkmnpqrstvwxyz]{{22}}", new_id(prefix))


def test_no_two_are_the_same() -> None:
    assert len({new_id("tri") for _ in range(20_000)}) == 20_000


def test_later_ids_sort_later() -> None:
    earlier = new_id("exp")
    time.sleep(0.002)
    assert earlier < new_id("exp")
