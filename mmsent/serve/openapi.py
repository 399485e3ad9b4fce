"""The API's own description, beyond what FastAPI sees by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mmsent.serve import page_schemas, schemas
from mmsent.serve.requests import FORM, JSON

REASONS = {
    400: "The body does not match its content type.",
    401: "The key is missing or wrong.",
    403: "The request names another host, or comes from a page of another site.",
    404: "Not found.",
    408: "The request did not arrive completely in time.",
    413: "The body is too large.",
    415: "The body is neither JSON nor a multipart form, or it is compressed.",
    422: "The request cannot be used; `detail` says why.",
    503: "The queue is full, or there was no answer in time: try again after `Retry-After` seconds.",
}
MODELS: tuple[type[BaseModel], ...] = (
    schemas.PostIn,
    schemas.PostsIn,
    page_schemas.CorrectionsIn,
    page_schemas.LabelsIn,
    schemas.Answer,
    schemas.Answers,
    schemas.Problem,
)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers without a result."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"description": REASONS[status], "content": {JSON: {"schema": reference(schemas.Problem)}}}
        if status == 503:
            found[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        if status == 401:
            found[status]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return found


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A model in the description."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def any_of(*models: type[BaseModel]) -> dict[str, Any]:
    """One of several models in the description."""
    found = [reference(model) for model in models]
    return found[0] if len(found) == 1 else {"anyOf": found}


def posts_body(*models: type[BaseModel]) -> dict[str, Any]:
    """The body of a request with posts: JSON of one of the models, or a form."""
    return _body({JSON: {"schema": any_of(*models)}, FORM: {"schema": schemas.form_schema()}})


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a request that is JSON of one model."""
    return _body({JSON: {"schema": reference(model)}})


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> None:
    """Let the application describe itself, with the models that its endpoints read and write by themselves, and without
    FastAPI's own form of validation errors, which it does not use."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            template = "#/components/schemas/{model}"
            _, own = models_json_schema([(model, "validation") for model in MODELS], ref_template=template)
            known = found.setdefault("components", {}).setdefault("schemas", {})
            known |= own["$defs"]
            for name in ("HTTPValidationError", "ValidationError"):
                known.pop(name, None)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
