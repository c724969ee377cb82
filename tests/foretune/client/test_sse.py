"""The SSE parser against a plain reading of the specification, and over any cut of the bytes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from foretune.client.sse import Message, Parser

_LINES = st.one_of(
    st.sampled_from(["", "", ":", ": keep-alive", "data", "data:", "id", "id: 7", "event: trial.state", "retry: 250"]),
    st.builds("{}{}{}".format, st.sampled_from(["data", "id", "event", "retry", "other"]), st.sampled_from([":", ": "]),
              st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)),
)  # fmt: skip
_STREAMS = st.lists(st.tuples(_LINES, st.sampled_from(["\n", "\r", "\r\n"])), max_size=30)


def _by_the_book(text: str) -> list[Message]:
    """The whole text at once, line by line, as section 9.2.6 words it."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    messages, last_id, event, data = [], "", "", ""
    for line in lines:
        if line == "":
            if data:
                messages.append(Message(last_id, event or "message", data[:-1]))
            event = data = ""
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if name == "data":
                data += value + "\n"
            elif name == "event":
                event = value
            elif name == "id" and "\0" not in value:
                last_id = value
    return messages


@given(_STREAMS, st.booleans(), st.lists(st.integers(0, 400), max_size=12))
def test_any_cut_of_the_bytes_gives_the_events_of_the_specification(
    stream: list[tuple[str, str]], bom: bool, cuts: list[int]
) -> None:
    # given a stream with every kind of line ending, cut anywhere, also inside characters
    text = ("\ufeff" if bom else "") + "".join(line + ending for line, ending in stream)
    encoded = text.encode()
    edges = [0, *sorted(min(cut, len(encoded)) for cut in cuts), len(encoded)]
    # when it is fed piece by piece
    parser = Parser()
    messages = [message for start, end in itertools.pairwise(edges) for message in parser.feed(encoded[start:end])]
    # then the events are those of the whole
    assert messages == _by_the_book(text)


def test_an_event_that_is_cut_off_is_not_delivered() -> None:
    parser = Parser()
    assert parser.feed(b"id: 1\ndata: {}\n\nid: 2\ndata: {") == [Message("1", "message", "{}")]
    assert parser.feed(b"}\n") == []
    assert parser.feed(b"\n") == [Message("2", "message", "{}")]


def test_the_reconnection_time_is_read_and_nonsense_is_not() -> None:
    parser = Parser()
    parser.feed(b"retry: 1500\nretry: soon\nretry: -3\n")
    assert parser.retry_ms == 1500
