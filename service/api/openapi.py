"""The OpenAPI document: what FastAPI finds out, and what holds for every endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from foretune.wire.base import Answer, Problem
from service.api.documented import problems

DESCRIPTION = """Hyperparameters from every job you ever ran.

Send `Authorization: Bearer KEY` with every call under `/v1`; a key belongs to one project, and nothing of another
project is ever visible. Errors are RFC 9457 problem documents with a stable `code`. Lists are paged: ask again with
`cursor` = `next` until it is null. Unknown fields and parameters are refused.
"""
TAGS = [
    {"name": "experiments", "description": "Tuning jobs."},
    {"name": "trials", "description": "Settings that are trained; asking for them and telling what came out."},
    {"name": "events", "description": "What happens, while it happens."},
    {"name": "recommendations", "description": "What the service has learned."},
    {"name": "datasets", "description": "What is trained on."},
    {"name": "networks", "description": "What is trained."},
    {"name": "keys", "description": "Who may call."},
    {"name": "service", "description": "Health and numbers; open to all."},
]
_Json = dict[str, object]


def document(app: FastAPI) -> _Json:
    """The document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS
        )
        components = cast("dict[str, _Json]", made.setdefault("components", {}))
        schemas = cast("dict[str, _Json]", components.setdefault("schemas", {}))
        schemas["Problem"] = _problem_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for schema in schemas.values():
            _require_tag(schema)
        for model in _models(Answer):
            extra = model.model_config.get("json_schema_extra")
            if model.__name__ in schemas and isinstance(extra, dict):
                # FastAPI leaves out what is null, also in examples.
                schemas[model.__name__].update(extra)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "A key: `ft_…`"}}
        for path, item in cast("dict[str, dict[str, _Json]]", made["paths"]).items():
            for operation in item.values():
                _complete(path, operation)
                _exemplify(operation, schemas)
        app.openapi_schema = made
    return cast("_Json", app.openapi_schema)


def _models(parent: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in parent.__subclasses__():
        yield child
        yield from _models(child)


def _require_tag(schema: _Json) -> None:
    """What tells the kinds of a parameter apart has a default in Python, and must be sent all the same."""
    properties = cast("dict[str, _Json]", schema.get("properties", {}))
    if "const" in properties.get("type", {}):
        properties["type"].pop("default", None)
        schema["required"] = [*cast("list[str]", schema.get("required", [])), "type"]


def _complete(path: str, operation: _Json) -> None:
    """Adds what every call of its kind may answer."""
    for parameter in cast("list[_Json]", operation.get("parameters", [])):
        _never_null(parameter)
    answers = cast("_Json", operation["responses"])
    answers.pop("422", None)
    common = [422, 500]
    if path.startswith("/v1"):
        operation["security"] = [{"key": []}]
        common += [401, 429, 503]
    else:
        operation["security"] = []
    if "requestBody" in operation:
        common += [413, 415]
    for status, answer in problems(*common).items():
        answers.setdefault(str(status), answer)
    for status in {"429", "503"} & answers.keys():
        found = cast("_Json", answers[status])
        found.setdefault("headers", {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}})
    if "401" in answers:
        cast("_Json", answers["401"])["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    operation["responses"] = dict(sorted(answers.items()))


def _exemplify(operation: _Json, schemas: dict[str, _Json]) -> None:
    """Shows what each success looks like: the example of its model, or a page of one."""
    for status, answer in cast("dict[str, _Json]", operation["responses"]).items():
        content = cast("dict[str, _Json]", answer.get("content", {}))
        if status < "300" and "application/json" in content:
            shown = content["application/json"]
            shown["example"] = _example_of(cast("_Json", shown["schema"]), schemas)


def _example_of(schema: _Json, schemas: dict[str, _Json]) -> object:
    if "anyOf" in schema:
        return _example_of(cast("list[_Json]", schema["anyOf"])[0], schemas)
    model = schemas[str(schema["$ref"]).rpartition("/")[2]]
    if "examples" in model:
        return cast("list[object]", model["examples"])[0]
    items = cast("dict[str, _Json]", model["properties"])["items"]
    return {"items": [_example_of(cast("_Json", items["items"]), schemas)], "next": None}


def _never_null(parameter: _Json) -> None:
    """A parameter may be absent, which is None in Python; there is no way to write null in a URL or a header."""
    schema = cast("_Json", parameter["schema"])
    kinds = cast("list[_Json]", schema.pop("anyOf", []))
    for kind in kinds:
        if kind != {"type": "null"}:
            schema.update({**kind, **schema})


def _problem_schema() -> _Json:
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    fault = cast("dict[str, _Json]", schema.pop("$defs"))["FieldFault"]
    errors = cast("dict[str, _Json]", schema["properties"])["errors"]
    errors.clear()
    errors.update({"type": "array", "items": fault, "description": "What is wrong where; with status 422."})
    return schema
