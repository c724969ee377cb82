"""Where the service is and which key opens it: arguments first, then the environment, then a local stack's defaults."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from foretune.errors import InvalidRequest

DEFAULT_URL = "http://127.0.0.1:8642"
URL_VARIABLE = "FORETUNE_URL"
KEY_VARIABLE = "FORETUNE_API_KEY"


@dataclass(frozen=True)
class Settings:
    """`url` has no trailing slash; `api_key` is None when none was found; `key_source` and `url_source` say where they
    came from.
    """

    url: str
    api_key: str | None = field(repr=False)
    key_source: str
    url_source: str = "the default"

    @property
    def is_local(self) -> bool:
        """Whether the service is on this machine."""
        return is_loopback(self.url)


def local_key_path() -> Path:
    """Where `foretune up` writes the key of the local stack, unless it was given another data folder."""
    return Path.home() / ".foretune" / "api_key"


def resolve(url: str | None = None, api_key: str | None = None) -> Settings:
    """Settings from arguments, environment and defaults.

    The key file of the local stack is only read for a service on this machine, so that its key never travels.
    Raises InvalidRequest for a URL or key that cannot be one.
    """
    from_environment = os.environ.get(URL_VARIABLE)
    chosen_url = _checked_url(url or from_environment or DEFAULT_URL)
    url_source = "url" if url else URL_VARIABLE if from_environment else "the default"
    return Settings(chosen_url, *_key(chosen_url, api_key), url_source)


def _key(url: str, api_key: str | None) -> tuple[str | None, str]:
    """The key for this URL, and where it came from."""
    if api_key:
        return _checked_key(api_key, "api_key"), "api_key"
    from_environment = os.environ.get(KEY_VARIABLE)
    if from_environment:
        return _checked_key(from_environment, KEY_VARIABLE), KEY_VARIABLE
    path = local_key_path()
    if is_loopback(url) and path.is_file():
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return None, f"{path} cannot be read ({error.strerror})"
        return _checked_key(content, str(path)), str(path)
    return None, "none found"


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine by its loopback interface."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # and nothing like 127.0.0.1.example.org


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise InvalidRequest(
            f"the service's URL must look like {DEFAULT_URL}, not {url!r} (from url= or {URL_VARIABLE})"
        )
    return url.strip().rstrip("/")


def _checked_key(key: str, source: str) -> str:
    stripped = key.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise InvalidRequest(f"the API key from {source} must be one word of printable ASCII characters")
    return stripped
