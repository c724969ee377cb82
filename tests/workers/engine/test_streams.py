"""Random streams."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from workers.engine import streams
from workers.networks import splitmix


def test_streams_of_neighbouring_seeds_and_positions_all_differ():
    numbers = set()
    for seed in range(50):
        own = streams.streams(seed)
        numbers |= {splitmix.at(stream, position) for stream in (own.order, own.noise) for position in range(20)}
        numbers.add(own.initialisation)
    assert len(numbers) == 50 * 41


def test_streams_are_the_same_in_every_version():
    own = streams.streams(0)
    assert splitmix.at(own.noise, 0) == 16106605220075932395
    assert splitmix.at(own.order, 7) == 2918531316711218779


def test_a_run_of_a_stream_is_its_positions_one_by_one():
    own = streams.streams(3)
    both = [own.noise, own.order]
    for first in (0, 41, 2**40):
        found = splitmix.run(np.array(both, dtype=np.uint64), first, 9)
        assert found.tolist() == [[splitmix.at(stream, first + ahead) for ahead in range(9)] for stream in both]


def test_large_and_negative_looking_seeds_are_taken():
    for seed in (0, 2**63, 2**64 - 1):
        assert torch.rand(1, generator=streams.generator(seed)).item() < 1.0


def test_threads_that_draw_from_the_global_generator_do_not_disturb_each_other():
    def drawn(seed: int) -> list[float]:
        with streams.kept_global_state():
            streams.seed_global(seed, torch.device("cpu"))
            return [float(torch.rand(1)) for _ in range(300)]

    before = torch.default_generator.get_state()
    alone = [drawn(seed) for seed in range(20)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(drawn, range(20))) == alone
    assert torch.equal(torch.default_generator.get_state(), before)
