"""`/docs`: the OpenAPI page. Its assets come from a package, so that it works where no other network is."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, HTTPException
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

router = APIRouter(include_in_schema=False)

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Foretune API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon.png">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
"""
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/docs")
async def page() -> Response:
    """Swagger UI on `/openapi.json`."""
    return HTMLResponse(_PAGE, headers=_POLICY)


@router.get("/docs/start.js")
async def start() -> Response:
    """Starts the page: a file of its own, so that no inline script need be allowed."""
    return Response(_START, media_type="text/javascript", headers=_POLICY)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """One of the page's files."""
    if name not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_folder() / name, media_type=_ASSETS[name], headers=_POLICY)


@router.get("/")
async def root() -> Response:
    """Leads to the page."""
    return RedirectResponse("/docs")


@cache
def _folder() -> Path:
    """Where the package keeps Swagger UI 5, which reads OpenAPI 3.1. Found without importing it."""
    found = find_spec("fastapi_offline")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "static"
