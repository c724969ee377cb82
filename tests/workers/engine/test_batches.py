"""Which rows each update sees."""

import pytest
import torch

from foretune.errors import InvalidDataset
from workers.engine.batches import RowBatches, TextBatches

CPU = torch.device("cpu")


@pytest.mark.parametrize(("rows", "batch_size"), [(100, 32), (100, 7), (5, 64), (1, 1), (96, 32)])
def test_an_epoch_sees_every_row_once_in_even_batches(rows, batch_size):
    batches = RowBatches(torch.arange(rows)[:, None].float(), torch.arange(rows), batch_size, CPU)
    batches.start_epoch(3)
    seen = [batches.batch(position) for position in range(batches.updates_per_epoch)]
    sizes = [len(targets) for _, targets in seen]
    assert sorted(torch.cat([targets for _, targets in seen]).tolist()) == list(range(rows))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert all(torch.equal(inputs[:, 0].long(), targets) for inputs, targets in seen)


def test_the_order_depends_on_the_stream_alone():
    batches = RowBatches(torch.zeros(50, 1), torch.arange(50), 50, CPU)
    orders = []
    for seed in (1, 2, 1):
        batches.start_epoch(seed)
        orders.append(batches.batch(0)[1].tolist())
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize(("tokens", "context_length"), [(1_000, 16), (1_003, 16), (33, 16), (17, 16), (5, 16), (2, 2)])
def test_windows_of_a_text_do_not_overlap_and_targets_are_one_on(tokens, context_length):
    batches = TextBatches(torch.arange(tokens), 8, context_length, CPU)
    for seed in range(6):
        batches.start_epoch(seed)
        seen = [batches.batch(position) for position in range(batches.updates_per_epoch)]
        targets = torch.cat([target.flatten() for _, target in seen])
        assert all(torch.equal(inputs + 1, target) for inputs, target in seen)
        assert len(set(targets.tolist())) == len(targets) == batches.windows * batches.context_length
        assert targets.max() < tokens


def test_offsets_reach_every_place_of_a_text():
    batches = TextBatches(torch.arange(100), 8, 16, CPU)
    seen = set()
    for seed in range(200):
        batches.start_epoch(seed)
        for position in range(batches.updates_per_epoch):
            seen |= set(batches.batch(position)[1].flatten().tolist())
    assert seen == set(range(1, 100))


def test_a_text_of_one_token_is_refused():
    with pytest.raises(InvalidDataset, match="too short"):
        TextBatches(torch.zeros(1, dtype=torch.int64), 8, 16, CPU)
