"""The application: layers, routes, and what lives as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import (
    datasets,
    docs,
    events,
    experiments,
    exports,
    health,
    histories,
    keys,
    metalearner,
    metrics,
    networks,
    openapi,
    problems,
    recommendations,
    suggestions,
    trials,
)
from service.api.auth import KeyCheck, TrustedKeys
from service.api.direct import Direct
from service.api.observing import Observed
from service.api.parts import Parts
from service.api.rate import Rate
from service.garbage import exempt_what_is_there
from service.settings import Settings

# The busiest first: routes are tried in order.
_ROUTERS = (
    trials.router,
    suggestions.router,
    experiments.router,
    events.router,
    exports.router,
    recommendations.router,
    histories.router,
    metalearner.router,
    datasets.router,
    datasets.uploads,
    networks.router,
    keys.router,
    health.router,
    metrics.router,
    docs.router,
)


_HOT = (
    trials.record_measurements,
    trials.complete_trial,
    trials.extend_lease,
    suggestions.suggest_trials,
)
"""The endpoints that ask/tell loops call for every trial and epoch."""


def hot_routes() -> list[APIRoute]:
    """Their routes."""
    routes = (*trials.router.routes, *suggestions.router.routes)
    return [route for route in routes if isinstance(route, APIRoute) and route.endpoint in _HOT]


class Application(FastAPI):
    """FastAPI, and before it the short way to the hot endpoints."""

    direct: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        scope["app"] = self
        await self.direct(scope, receive, send)

    async def whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The way through all of FastAPI."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. Nothing is connected before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = Parts(settings)
        app.state.parts = parts
        await parts.start()
        exempt_what_is_there()
        try:
            yield
        finally:
            await parts.stop()

    app = Application(
        title="Foretune",
        version=version("foretune"),
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        middleware=[Middleware(Observed), Middleware(KeyCheck)],
    )
    app.state.trusted_keys = TrustedKeys()
    app.state.rate = Rate(settings.foretune_calls_per_s)
    problems.register(app)
    for router in _ROUTERS:
        app.include_router(router)
    app.direct = Direct(app.whole, hot_routes())
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app
