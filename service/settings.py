"""Settings, from the environment. `.env.example` lists them all."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a process of Foretune must know. Names are the environment variables, in any case."""

    model_config = SettingsConfigDict(env_prefix="", extra="ignore", frozen=True, use_attribute_docstrings=True)

    database_url: str = "postgresql+psycopg://foretune:foretune@127.0.0.1:5432/foretune"
    """Postgres, as SQLAlchemy writes it."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """A Redis-protocol server: `redis://…`, `rediss://…` or `unix:///path/to/socket?db=0`."""
    artifacts_url: str = "file:///var/lib/foretune/artifacts"
    """Where datasets, checkpoints and models lie: any fsspec address, such as `s3://bucket/prefix`."""

    foretune_max_upload_bytes: int = Field(default=512 * 2**20, ge=1)
    """The largest file that `POST /v1/datasets` takes."""
    foretune_max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    """The largest JSON body."""
    foretune_calls_per_s: float = Field(default=0.0, ge=0)
    """How many calls a second a key may make to an API process, with bursts of two seconds' worth; 0: any number."""
    foretune_lease_s: float = Field(default=60.0, gt=0)
    """How long an external trial stays leased after its last sign of life."""
    foretune_worker_lease_s: float = Field(default=15.0, gt=0)
    """How long a trial stays leased to a worker that shows no sign of life."""
    foretune_shift_s: float = Field(default=60.0, gt=0)
    """How long a worker stays with one experiment before it hands back and queues again."""
    foretune_checkpoint_every_s: float = Field(default=2.0, ge=0)
    """At most this much training of a trial is repeated after its worker was killed."""
    foretune_upkeep_every_s: float = Field(default=2.0, gt=0)
    """How often beat looks for what a dead process left behind."""
    foretune_stream_max_s: float = Field(default=3600.0, gt=0)
    """The longest life of one event stream; clients resume with `Last-Event-ID`."""
    foretune_threads: int = Field(default=32, ge=1)
    """Threads of the API process that answer requests, each with a database connection."""
    foretune_log_format: Literal["json", "text"] = "json"
    foretune_log_level: Literal["debug", "info", "warning", "error"] = "info"
    foretune_starter_history: bool = True
    """Whether experiments with `priors: auto` also learn from the starter history that ships with the service."""
    foretune_device: str | None = None
    """The device that workers train on (`cuda:1`, `cpu`); chosen automatically when absent."""
    foretune_precision: Literal["auto", "float32"] = "auto"
    """The precision of new trials: mixed where it is faster, or always float32."""


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


def faults() -> list[str]:
    """What is wrong with the environment: a phrase for each variable that cannot be used."""
    try:
        Settings()
    except ValidationError as error:
        return [f"{one['loc'][0]!s}".upper() + f" is {one['input']!r}: {one['msg']}" for one in error.errors()]
    return []
