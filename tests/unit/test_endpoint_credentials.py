"""Keys go where they were meant to go, and nowhere into errors, journals or logs."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

import anystep
from anystep import Run, drive, journal, search
from anystep.answer import AllFailed
from anystep.errors import ModelError, UsageError
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.language.endpoint.credentials import credentials, loopback
from anystep.testing.server import FakeServer

OURS, THEIRS = "ours-secret", "openai-secret"


def sent(address: str, key: str | None = None, headers: dict[str, str] | None = None) -> str | None:
    return credentials(address, key, headers).headers.get("authorization")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANYSTEP_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "ours", "theirs"),
    [("https://api.openai.com/v1", True, True), ("https://eu.api.openai.com/v1", True, True),
     ("http://api.openai.com/v1", False, False), ("https://evil.example/v1", True, False),
     ("https://api.openai.com.evil.example/v1", True, False), ("https://xapi.openai.com/v1", True, False),
     ("http://evil.example/v1", False, False), ("http://10.0.0.7:8000/v1", False, False),
     ("http://127.0.0.1:8000/v1", True, False), ("http://localhost:8000/v1", True, False),
     ("http://[::1]:8000/v1", True, False), ("http://127.0.0.1.evil.example/v1", False, False),
     ("http://localhost.evil.example/v1", False, False), ("http://0.0.0.0:8000/v1", False, False)],
)  # fmt: skip
def test_a_key_of_the_environment_goes_where_it_is_for(
    address: str, ours: bool, theirs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sent(address) is None and credentials(address, None, None).withheld == ""
    monkeypatch.setenv("OPENAI_API_KEY", THEIRS)
    assert sent(address) == (f"Bearer {THEIRS}" if theirs else None)
    assert ("no key was sent" in credentials(address, None, None).withheld) is not theirs
    monkeypatch.setenv("ANYSTEP_API_KEY", OURS)
    assert sent(address) == (f"Bearer {OURS}" if ours else None)
    assert sent(address, "given") == "Bearer given"
    assert sent(address, "") is None and credentials(address, "", None).withheld == ""


def test_openais_key_goes_to_the_server_that_its_own_variable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", THEIRS)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example:8443/v1")
    assert sent("https://gateway.example:8443/other") == f"Bearer {THEIRS}"
    for other in ("https://gateway.example/v1", "http://gateway.example:8443/v1", "https://else.example:8443/v1"):
        assert sent(other) is None


def test_headers_and_users_of_an_address_stand_over_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_API_KEY", OURS)
    found = credentials("https://x.example/v1", None, {"Authorization": "Bearer mine", "X-Team": "7"})
    assert found.headers["authorization"] == "Bearer mine" and found.headers["x-team"] == "7"
    assert len([name for name in found.headers if name.lower() == "authorization"]) == 1
    found = credentials("http://user:pass%40word@x.example:8/v1/", None, None)
    assert found.url == "http://x.example:8/v1"
    assert found.headers["authorization"] == "Basic dXNlcjpwYXNzQHdvcmQ="
    with pytest.raises(UsageError, match="names a user already"):
        credentials("http://user:hidden@x.example/v1", "key", None)
    with pytest.raises(UsageError, match="ends with its path") as refused:
        credentials("https://x.example/v1?api_key=hidden", None, None)
    assert "hidden" not in str(refused.value)


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent("https://x.example/v1", "secret\r\n") == "Bearer secret"  # as files of variables from elsewhere end
    for wrong in ("sec\nret", "sec\x00ret", "sécret"):
        with pytest.raises(UsageError, match="no header can") as refused:
            Endpoint("https://x.example/v1", key=wrong)
        assert "ret" not in str(refused.value)
        with pytest.raises(UsageError, match="no header can"):
            Endpoint("https://x.example/v1", headers={"x-key": wrong})


@pytest.mark.parametrize("address", ["http://x:99999/v1", "http://x:y/v1", "http://[::1/v1", "http://:80/v1"])
def test_an_address_that_cannot_be_read_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="give the address of a server"):
        Endpoint(address)


def test_no_password_stands_in_what_is_shown_or_kept(tmp_path: Path) -> None:
    with FakeServer(api_key="other") as server:
        address = server.url.replace("://", "://someone:hidden@")
        with Endpoint(f"{address}#toy", api="chat") as endpoint:
            run = Run(EndpointProcess(endpoint, "Which?"), search.sample(n=1), journal=journal.open(tmp_path / "j"))
            with pytest.raises(AllFailed, match="401"):
                drive(run)
            assert server.seen[-1][2]["authorization"].startswith("Basic ")
            shown = f"{endpoint!r} {run.error} {endpoint.url} {endpoint._given!r}"
    assert "hidden" not in shown and b"hidden" not in (tmp_path / "j").read_bytes()
    with pytest.raises(ModelError) as refused:
        anystep.solve("Which?", model=address)
    assert "hidden" not in str(refused.value)


def test_a_refusal_says_why_no_key_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", THEIRS)
    with FakeServer(api_key=THEIRS) as server:
        with pytest.raises(ModelError, match="no key was sent, for \\$OPENAI_API_KEY goes to api.openai.com alone"):
            _ = Endpoint(server.url).model
        with Endpoint(f"{server.url}#toy", api="chat") as endpoint:
            run = Run(EndpointProcess(endpoint, "Which?"), search.sample(n=1))
            with pytest.raises(AllFailed, match=r"401 Unauthorized: .*no key was sent"):
                drive(run)
        assert all("authorization" not in headers for _, _, headers in server.seen)


def test_a_key_for_this_machine_passes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_API_KEY", OURS)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with FakeServer(api_key=OURS) as server, FakeServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        with Endpoint(server.url) as endpoint:
            assert endpoint.model == "toy" and proxy.seen == []


def test_a_key_does_not_follow_a_redirect() -> None:
    asked = []

    def moved(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://evil.example/v1/chat/completions"})

    endpoint = Endpoint("https://x.example/v1#m", key=OURS, api="chat", transport=httpx.MockTransport(moved))
    with endpoint, pytest.raises(AllFailed, match="307"):
        drive(Run(EndpointProcess(endpoint, "Which?"), search.sample(n=1)))
    assert set(asked) == {"x.example"}


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("LOCALHOST", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
     ("0.0.0.0", False), ("127.1", False), ("", False), ("::ffff:8.8.8.8", False), ("localhost.example", False)],
)  # fmt: skip
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert loopback(host) is here
