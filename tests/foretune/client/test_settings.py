"""Where the client looks for the service and its key, and what the package exports."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

import foretune
from foretune.client.settings import resolve
from foretune.errors import InvalidRequest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FORETUNE_URL", raising=False)
    monkeypatch.delenv("FORETUNE_API_KEY", raising=False)
    return tmp_path


def write_key(home, text: str) -> None:
    (home / ".foretune").mkdir()
    (home / ".foretune" / "api_key").write_text(text)


def test_a_local_stack_is_found_with_its_key(home) -> None:
    write_key(home, "ft_local\n")
    settings = resolve()
    assert (settings.url, settings.api_key) == ("http://127.0.0.1:8642", "ft_local")
    assert settings.key_source.endswith(".foretune/api_key")


def test_arguments_come_before_the_environment_and_the_file(home, monkeypatch) -> None:
    write_key(home, "ft_local")
    monkeypatch.setenv("FORETUNE_URL", "https://tune.example.org/base/")
    monkeypatch.setenv("FORETUNE_API_KEY", "ft_environment")
    assert resolve().url == "https://tune.example.org/base"
    assert resolve().api_key == "ft_environment"
    assert resolve("http://localhost:1", "ft_argument").api_key == "ft_argument"


@pytest.mark.parametrize("url", ["https://tune.example.org", "http://127.0.0.1.example.org", "http://10.0.0.7:8642"])
def test_the_local_key_never_goes_to_another_machine(home, url: str) -> None:
    write_key(home, "ft_local")
    assert resolve(url).api_key is None


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.8.8.8", "http://[::1]:8642"])
def test_the_local_key_is_for_every_way_to_name_this_machine(home, url: str) -> None:
    write_key(home, "ft_local")
    assert resolve(url).api_key == "ft_local"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8642", "ftp://host", "http://", "http://host:port", "http://h?x=1", "http://[1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"must look like http://127.0.0.1:8642"):
        resolve(url)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "   "])
def test_what_is_no_key_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(InvalidRequest, match="one word of printable ASCII") as caught:
        resolve(api_key=key)
    assert key.strip() == "" or key not in caught.value.message


def test_a_key_does_not_show_in_logs() -> None:
    assert "ft_secret" not in repr(resolve(api_key="ft_secret"))
    assert "ft_secret" not in repr(foretune.Client(api_key="ft_secret"))


def test_everything_that_is_exported_is_there_and_nothing_else() -> None:
    for name in foretune.__all__:
        assert getattr(foretune, name).__name__ == name
    assert set(foretune.__all__) <= set(dir(foretune))
    with pytest.raises(AttributeError, match="Sesame"):
        _ = foretune.Sesame


def test_the_package_costs_the_service_no_http_client() -> None:
    code = "import foretune.spaces, foretune.wire.trials, sys; print('httpx' in sys.modules, 'typer' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_the_client_needs_none_of_the_services_parts() -> None:
    code = (
        "import foretune.cli.main, foretune.client, sys;"
        "print(*({'torch', 'sqlalchemy', 'fastapi', 'celery', 'numpy', 'redis', 'service'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""


def test_advice_about_an_address_is_a_sentence() -> None:
    with foretune.Client("http://10.0.0.7:8642", "k") as client:
        message = client._transport.unreachable(httpx.ConnectError("refused")).message
    assert message == "cannot reach http://10.0.0.7:8642: refused. Is the address right? FORETUNE_URL sets it."
