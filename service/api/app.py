"""The application: layers, routes, and what lives as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware import Middleware

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

    app = FastAPI(
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
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app
