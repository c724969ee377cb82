"""What crosses HTTP: requests are strict, answers forgiving, and JSON stays within bounds."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, ValidationError

from foretune.json_types import JsonValue
from foretune.wire import datasets
from foretune.wire.base import Answer, Request, check_json
from foretune.wire.experiments import EXAMPLE_EXTERNAL, EXAMPLE_MANAGED, ExperimentPatch, ExperimentRequest, Mode
from foretune.wire.recommendations import RecommendationRequest
from foretune.wire.service import KeyRequest
from foretune.wire.trials import (
    CompleteRequest,
    HeartbeatRequest,
    MeasurementReport,
    MeasurementsRequest,
    SuggestionRequest,
)


def every(parent: type[BaseModel]) -> list[type[BaseModel]]:
    return [found for child in parent.__subclasses__() for found in (child, *every(child))]


@pytest.mark.parametrize("model", [*every(Request), *every(Answer)], ids=lambda model: model.__name__)
def test_every_example_is_what_its_model_reads_and_says(model: type[BaseModel]) -> None:
    extra = model.model_config.get("json_schema_extra") or {}
    assert isinstance(extra, dict)
    for example in extra.get("examples", []):  # type: ignore[union-attr]
        read = model.model_validate(example, extra="forbid")
        assert model.model_validate(read.model_dump(mode="json", exclude_unset=True)) == read
        if issubclass(model, Answer):
            assert set(example) == set(model.model_fields)  # type: ignore[arg-type]


class TestRequests:
    def test_uploads_are_requests_too(self) -> None:
        assert datasets.DatasetUpload in every(Request)

    @pytest.mark.parametrize("model", every(Request), ids=lambda model: model.__name__)
    def test_unknown_fields_are_refused(self, model: type[BaseModel]) -> None:
        with pytest.raises(ValidationError) as caught:
            model.model_validate({"surprise": 1})
        assert any(fault["loc"] == ("surprise",) for fault in caught.value.errors())

    @pytest.mark.parametrize("name", ["a\x1b[31m", "two\nlines", "\u202eevil", "\u2066a", " ", "\t", " a", "\u200b"])
    def test_names_that_steer_a_terminal_or_show_nothing_are_refused(self, name: str) -> None:
        for model, body in (
            (ExperimentRequest, {"mode": "managed", "name": name}),
            (ExperimentRequest, {"mode": "managed", "labels": {name: "x"}}),
            (ExperimentRequest, {"mode": "managed", "labels": {"x": name}}),
            (ExperimentPatch, {"name": name}),
            (KeyRequest, {"name": name}),
        ):
            with pytest.raises(ValidationError, match="must be printable, without spaces at its ends"):
                model.model_validate(body)

    def test_names_of_all_languages_are_taken(self) -> None:
        assert KeyRequest(name="Größe 大きさ 🚀 a/b").name == "Größe 大きさ 🚀 a/b"
        assert ExperimentPatch(labels={"team": ""}).labels == {"team": ""}

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_are_none_are_refused(self, number: str) -> None:
        body = json.loads(f'{{"epoch": 1, "value": {number}}}')
        with pytest.raises(ValidationError, match="finite"):
            MeasurementReport.model_validate(body)

    @pytest.mark.parametrize(
        ("model", "body"),
        [
            (SuggestionRequest, {"count": 0}),
            (SuggestionRequest, {"count": 10**30}),
            (SuggestionRequest, {"count": 1.5}),
            (SuggestionRequest, {"wait_seconds": 61}),
            (MeasurementReport, {"epoch": 0, "value": 1.0}),
            (MeasurementReport, {"epoch": 1}),
            (MeasurementReport, {"epoch": 1, "value": 1.0, "seconds": -1}),
            (MeasurementsRequest, {"lease": "x", "measurements": []}),
            (MeasurementsRequest, {"lease": "", "measurements": [{"epoch": 1, "value": 1.0}]}),
            (CompleteRequest, {"lease": "x", "outcome": "infeasible", "value": 1.0}),
            (CompleteRequest, {"lease": "x", "outcome": "lost"}),
            (CompleteRequest, {"lease": "x", "reason": "a\x00"}),
            (HeartbeatRequest, {}),
            (KeyRequest, {"name": "a\ud800"}),
            (RecommendationRequest, {"network": "mlp"}),
            (RecommendationRequest, {"dataset": "digits"}),
            (RecommendationRequest, {"dataset": "digits", "features": {}, "network": "mlp"}),
            (ExperimentPatch, {"budget": {"max_trials": 0}}),
            (ExperimentPatch, {"parallelism": 0}),
        ],
    )
    def test_what_is_out_of_bounds_is_refused(self, model: type[BaseModel], body: object) -> None:
        with pytest.raises(ValidationError):
            model.model_validate(body)


class TestExperimentRequest:
    @pytest.mark.parametrize("example", [EXAMPLE_MANAGED, EXAMPLE_EXTERNAL])
    def test_the_documented_examples_are_requests(self, example: dict[str, object]) -> None:
        request = ExperimentRequest.model_validate(json.loads(json.dumps(example)))
        assert ExperimentRequest.model_validate_json(request.model_dump_json()) == request

    def test_only_the_mode_is_always_needed(self) -> None:
        request = ExperimentRequest(mode=Mode.MANAGED)
        assert (request.budget.max_trials, request.parallelism, request.seed, request.priors) == (32, 8, 0, "auto")

    @pytest.mark.parametrize(
        "change",
        [
            {"mode": "magic"},
            {"metric": {"name": "loss", "goal": "up"}},
            {"budget": {"max_trials": 2**64}},
            {"budget": {"max_seconds": 0}},
            {"seed": -1},
            {"seed": 2**31},
            {"parallelism": "many"},
            {"labels": {"": "x"}},
            {"labels": {str(number): "x" for number in range(33)}},
            {"labels": {"a": 1}},
            {"features": {"rows": None}},
            {"fixed": {"a": "\x00"}},
            {"fixed": {"a": 2**70}},
            {"priors": "some"},
            {"space": []},
            {"space": [{"name": "a\x00", "type": "bool"}]},
            {"dataset": ""},
            {"name": "x" * 201},
        ],
    )
    def test_what_is_out_of_bounds_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            ExperimentRequest.model_validate({"mode": "managed", **change})


class TestAnswers:
    def test_a_newer_service_may_say_more(self) -> None:
        """Given a field that this client does not know, it is dropped rather than refused."""

        class Known(Answer):
            a: int

        assert Known.model_validate({"a": 1, "b": 2}) == Known(a=1)


class TestCheckJson:
    def test_what_postgres_keeps_passes(self) -> None:
        value: JsonValue = {"a": [1, 2.5, None, True, "ü🚀", {"b": [-(2**63)]}]}
        assert check_json(value) == value

    @pytest.mark.parametrize(
        "value",
        [float("nan"), float("inf"), 2**63 + 1, -(2**64), "\x00", {"\x00": 1}, ["a", {"b": "\ud800"}]],
    )
    def test_what_it_does_not_keep_is_refused(self, value: object) -> None:
        with pytest.raises(ValueError, match=r"finite|2\^63|U\+0000|surrogates"):
            check_json(value)  # type: ignore[arg-type]

    def test_depth_is_bounded(self) -> None:
        value: object = 1
        for _ in range(20):
            value = [value]
        check_json(value)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="20 levels"):
            check_json([value])  # type: ignore[list-item]
