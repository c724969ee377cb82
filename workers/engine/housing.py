"""Which trial trains in which population, and whose turn it is.

What can be compiled trains alone, and so does what only the plain loop can train. All else is stacked.
Populations of one signature have a largest size, beyond which stacking gains nothing (see `workers.engine.pace`). A
trial joins one with room; when many have left, two that fit together are merged, so that no population below 70 % of
its size stands beside another that has room for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from workers.engine.compiled import Compiled, can_compile
from workers.engine.device import free_cache
from workers.engine.device_data import DeviceData
from workers.engine.pace import size_search
from workers.engine.plain_loop import PlainLoop
from workers.engine.population import EpochEnd, Population
from workers.engine.rows import Rows
from workers.engine.signature import Signature, signature_of
from workers.engine.slot import Slot
from workers.engine.way import Stacked, StepFailed, Way

_WELL_FILLED = 0.7
_log = logging.getLogger(__name__)


def home_of(slot: Slot) -> Signature | Way:
    """The signature of a trial that is stacked; else its own way to train."""
    return Compiled(slot) if can_compile(slot) else signature_of(slot) or PlainLoop()


class Housing:
    """Houses the trials of one engine in populations, each as `choose` says."""

    def __init__(self, data: DeviceData, choose: Callable[[Slot], Signature | Way] = home_of) -> None:
        self._data, self._choose = data, choose
        self._populations: dict[Population, Signature | None] = {}

    def admit(self, slot: Slot) -> None:
        """Finds a population with room, or founds one. What runs out of memory here leaves everything as it was."""
        home = self._choose(slot)
        if isinstance(home, Signature):
            slot.store_as(home.shape.stored())
            self._house(slot, home)
        else:
            self._found_alone(slot, home)

    def release(self, slot: Slot) -> None:
        """Takes a trial out, if it still trains."""
        for population in self._populations:
            if slot in population.members:
                population.leave(slot)
                self._tidy(population)
                return

    def advance(self, deadline: float | None) -> list[EpochEnd]:
        """Advances the population that is least advanced; see `Population.advance`. Empty when nothing is live."""
        while self._populations:
            population = min(self._populations, key=lambda one: one.progress)
            try:
                ends = population.advance(deadline)
            except StepFailed as error:
                self._split(population, error)
                continue
            self._learn(population)
            self._tidy(population)
            return ends
        return []

    def _house(self, slot: Slot, signature: Signature) -> None:
        roomy = [one for one in self._of(signature) if self._room(one)]
        if roomy:
            roomy[0].join(slot)
            return
        rows = Rows(slot)
        program = signature.shape.program(slot.flat.layout, self._data)
        self._found(slot, Population(Stacked(program, rows), rows, self._progress), signature)

    def _found_alone(self, slot: Slot, way: Way) -> None:
        self._found(slot, Population(way, None, self._progress), None)

    def _found(self, slot: Slot, population: Population, signature: Signature | None) -> None:
        population.join(slot)
        self._populations[population] = signature

    @property
    def _progress(self) -> float:
        return min((population.progress for population in self._populations), default=0.0)

    def _learn(self, population: Population) -> None:
        """Takes in a population's pace; the sizes of all its kind may follow."""
        signature = self._populations[population]
        if signature is None:
            return
        search, alike = size_search(signature, self._data.device), self._of(signature)
        before = search.size
        if search.note(len(population.members), population.pace.seconds, more=len(alike) > 1):
            _log.info("populations of %s: %d members at most, %d before", signature, search.size, before)
            self._arrange(signature, search.size)

    def _arrange(self, signature: Signature, size: int) -> None:
        """Distributes the members of a kind anew over populations of at most `size`; the first ones are filled."""
        populations = self._of(signature)
        for position, population in enumerate(populations):
            for later in populations[position + 1 :]:
                while later.members and len(population.members) < size:
                    _move(later.members[-1], later, population)
            while len(population.members) > size:
                slot = population.members[-1]
                population.leave(slot)
                self._house(slot, signature)
        for population in populations:
            if not population.members:
                del self._populations[population]

    def _tidy(self, population: Population) -> None:
        """Drops an empty population, and merges one that has become small."""
        if not population.members:
            self._populations.pop(population, None)
            return
        signature = self._populations[population]
        if signature is None or len(population.members) >= _WELL_FILLED * self._size(signature):
            return
        for other in self._of(signature):
            if other is not population and self._room(other) >= len(population.members):
                while population.members:
                    _move(population.members[-1], population, other)
                del self._populations[population]
                return

    def _split(self, population: Population, error: StepFailed) -> None:
        """Halves a population that does not fit the device; dissolves one that fails for another reason."""
        signature = self._populations.pop(population)
        members = tuple(population.members)
        for slot in members:
            population.leave(slot)
        if signature is not None and error.out_of_memory and len(members) > 1:
            size_search(signature, self._data.device).halve(len(members))
            _log.warning("%d members of %s do not fit: halved", len(members), signature)
            free_cache(self._data.device)
            for slot in members:
                self._house(slot, signature)
            return
        _log.error("stacking %s failed; its members are trained by the plain loop", signature, exc_info=error)
        for slot in members:
            self._found_alone(slot, PlainLoop())

    def _of(self, signature: Signature) -> list[Population]:
        return [population for population, theirs in self._populations.items() if theirs == signature]

    def _room(self, population: Population) -> int:
        signature = self._populations[population]
        return 0 if signature is None else max(0, self._size(signature) - len(population.members))

    def _size(self, signature: Signature) -> int:
        return size_search(signature, self._data.device).size


def _move(slot: Slot, there: Population, here: Population) -> None:
    there.leave(slot)
    here.join(slot)
