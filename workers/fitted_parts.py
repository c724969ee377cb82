"""What was worked out of histories, as Postgres keeps it and as the meta-learner sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from foretune.json_types import JsonValue
from metalearner import FittedModel
from metalearner.fitted import Residuals
from metalearner.kernels import HistoryKernel
from service.db.models import FittedPart


def model_of(references: Mapping[str, str], parts: Mapping[str, FittedPart]) -> FittedModel:
    """The model that the kept parts make. `references`: of its histories, by fingerprint."""
    known = [(reference, parts[one]) for one, reference in references.items() if one in parts]
    return FittedModel(
        {reference: _kernel(part.kernel) for reference, part in known},
        {reference: found for reference, part in known for found in _residuals(part.residuals)},
    )


def kernel_json(kernel: HistoryKernel) -> JsonValue:
    return {"length_scales": list(kernel.length_scales), "scale": kernel.scale, "noise": kernel.noise}


def residuals_json(found: Residuals, by: str) -> JsonValue:
    """`by`: what weighed the histories, `features` or `space`."""
    return {"other": list(found.other), "same": list(found.same), "by": by}


def _kernel(told: JsonValue) -> HistoryKernel:
    assert isinstance(told, dict)
    scale, noise = _floats([told["scale"], told["noise"]])
    return HistoryKernel(_floats(told["length_scales"]), scale, noise)


def _residuals(told: JsonValue) -> Iterator[Residuals]:
    if isinstance(told, dict):
        yield Residuals(_floats(told["other"]), _floats(told["same"]))


def made_by(residuals: JsonValue) -> JsonValue:
    """What weighed the histories when residuals were worked out; None where they were not yet."""
    return residuals.get("by", "features") if isinstance(residuals, dict) else None


def _floats(values: JsonValue) -> tuple[float, ...]:
    assert isinstance(values, list)
    return tuple(float(one) for one in values if isinstance(one, int | float))
