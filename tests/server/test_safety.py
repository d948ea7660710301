"""What a page of another site, a stranger or a wrong request cannot do."""

import http.server
import importlib
import json
import os
import pkgutil
import threading
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from server_support import answer_of, file_url, running, text

import retake_edge.server
from retake_edge.server import fetch
from retake_edge.server.errors import ApiError
from retake_edge.server.guard import is_public
from retake_edge.server.limits import ServerLimits

KEY = {"Authorization": "Bearer open-sesame"}


def error_of(response):
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "", "127.0.0.1.a"])
def test_a_name_that_is_not_ours_is_refused(server, host):
    response = server.http.get("/v1/models", headers={"Host": host})
    assert response.status_code in (400, 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_is_refused_and_no_origin_is_opened(server, origin):
    response = server.http.post("/v1/chat/completions", headers={"Origin": origin}, json={})
    assert error_of(response) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers


def test_our_own_page_may_ask(server):
    assert server.http.get("/v1/models", headers={"Origin": server.url}).status_code == 200


def test_without_the_key_only_health_is_told(guarded):
    get = guarded.http.get
    assert get("/health").json() == {"status": "ok"}
    assert error_of(get("/v1/models")) == (401, "invalid_api_key")
    assert error_of(get("/v1/models", headers={"X-Api-Key": "open"})) == (401, "invalid_api_key")
    assert get("/v1/models", headers={"X-Api-Key": "open-sesame"}).status_code == 200
    assert get("/v1/models", headers=KEY).status_code == 200


def test_a_body_that_is_too_large_is_refused_announced_or_not(guarded):
    for body in (b" " * (1 << 17), iter([b" " * (1 << 16)] * 2)):
        headers = {**KEY, "Content-Type": "application/json"}
        response = guarded.http.post("/v1/chat/completions", content=body, headers=headers)
        assert error_of(response) == (413, "too_large")


def test_an_upload_that_is_too_large_leaves_nothing(server):
    before = sorted(server.service.blobs.folder.iterdir())
    for size in ((1 << 22) + 1, 1 << 24):
        response = server.http.post("/v1/files", files={"file": ("a.mp4", b"x" * size)})
        assert response.status_code == 413
    assert sorted(server.service.blobs.folder.iterdir()) == before


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "file://SCENES/../../etc/passwd", "file://SCENES/link.mp4"]
)
def test_files_outside_of_the_media_path_look_like_none(server, scenes, url):
    folder = scenes[0][0].parent
    link = folder / "link.mp4"
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    part = {"type": "video_url", "video_url": {"url": url.replace("SCENES", str(folder))}}
    told = server.chat([part, text("What is it?")])
    missing = server.chat([file_url(folder / "none.mp4"), text("What is it?")])
    assert error_of(told) == (403, "path_not_allowed")
    assert told.json() == missing.json()


def test_a_file_that_is_no_video_is_refused_without_paths_or_ffmpegs_words(server):
    uploaded = server.http.post("/v1/files", files={"file": ("a.mp4", b"not a video" * 99)})
    part = {"type": "file", "file": {"file_id": uploaded.json()["id"]}}
    response = server.chat([part, text("What is it?")])
    assert error_of(response) == (415, "video_unreadable")
    assert str(server.service.blobs.folder) not in response.text


def test_urls_are_off(server):
    part = {"type": "video_url", "video_url": {"url": "http://192.0.2.1/a.mp4"}}
    assert error_of(server.chat([part, text("What is it?")])) == (403, "url_not_allowed")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("224.0.0.1", "255.255.255.255", "::", "::127.0.0.1", "fec0::1", "2001::1", "ff02::1"),
    ],
)
def test_private_addresses_are_not_public(address):
    assert not fetch.is_public(address)


@pytest.fixture(scope="module")
def fetching(tmp_path_factory):
    """A server that fetches URLs."""
    with running(tmp_path_factory.mktemp("fetching"), ServerLimits(allow_urls=True)) as made:
        yield made


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1:22", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0"),
        *("0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
        *("[64:ff9b::7f00:1]", "user:word@127.0.0.1", "169.254.169.254", "10.0.0.1"),
    ],
)
@pytest.mark.parametrize("kind", ["video_url", "image_url"])
def test_no_way_to_write_a_private_address_is_fetched(fetching, host, kind):
    for scheme in ("http", "HTTP", "https"):
        part = {"type": kind, kind: {"url": f"{scheme}://{host}/a.mp4"}}
        found = error_of(fetching.chat([part, text("What is it?")]))
        assert found == (403, "url_not_allowed")


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///a", "http://[::1", "http://a b/", "http://127.0.0.1:x/", "gopher://a.b/c"],
)
def test_a_url_that_is_none_is_the_clients_fault(fetching, url):
    part = {"type": "video_url", "video_url": {"url": url}}
    assert fetching.chat([part, text("What is it?")]).status_code in (400, 403)


def test_public_addresses_are_public():
    assert fetch.is_public("93.184.216.34") and fetch.is_public("2606:4700::1111")


class _Redirects(http.server.BaseHTTPRequestHandler):
    """/go leads to the loopback address, anything else has content."""

    def do_GET(self):
        address: Any = self.server.server_address
        port = address[1]
        if self.path == "/go":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{port}/secret")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"video")

    def log_message(self, *_):
        pass


def test_a_redirect_to_a_private_address_is_refused(monkeypatch):
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.2")
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), _Redirects) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        port = site.server_address[1]
        assert b"".join(fetch.fetch(f"http://127.0.0.2:{port}/a.mp4")) == b"video"
        for url in (f"http://127.0.0.2:{port}/go", f"http://localhost:{port}/a.mp4"):
            with pytest.raises(ApiError, match="private"):
                list(fetch.fetch(url))
        site.shutdown()


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": "What is it?"}]},
        {"messages": [{"role": "user", "content": [{"type": "sound"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": "\ud800"}]}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": {"type": "text", "text": 5}}]},
        {"messages": [{"role": "user", "content": "x"}], "n": 2},
        {"messages": "x"},
    ],
)
def test_a_wrong_request_gets_one_sentence(server, body):
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    response = server.http.post("/v1/chat/completions", content=content, headers=headers)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], bool(error["message"])) == ("invalid_request_error", True)


def test_json_without_an_end_is_no_fault_of_the_server(server):
    for content in (b"[" * 100_000, b"{", b"\xff", b'{"messages": [NaN]}'):
        headers = {"Content-Type": "application/json"}
        response = server.http.post("/v1/chat/completions", content=content, headers=headers)
        assert response.status_code == 400


def routes():
    """(method, path, whether it is documented) of all that the server answers."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(retake_edge.server.__path__, "retake_edge.server.")
    ]
    routers = [module.router for module in modules if hasattr(module, "router")]
    return {
        (method, route.path, route.include_in_schema)
        for router in routers
        for route in router.routes
        for method in route.methods
    }


def test_every_route_but_the_public_ones_asks_for_the_key(guarded):
    asked = [(method, path) for method, path, _ in routes() if not is_public(path)]
    assert len(asked) >= 12
    for method, path in [*asked, ("GET", "/openapi.json"), ("GET", "/nope")]:
        for headers in ({}, {"Authorization": "Bearer open"}, {"X-Api-Key": "open-sesam"}):
            response = guarded.http.request(
                method, path.replace("{", "").replace("}", ""), headers=headers
            )
            assert error_of(response) == (401, "invalid_api_key")


@pytest.mark.parametrize("which", ["server", "guarded"])
def test_nothing_that_the_document_allows_fails(which, scenes, request):
    server = request.getfixturevalue(which)
    key = KEY if which == "guarded" else {}
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=key)
    found: Any = schema.get_all_operations()
    operations = [result.ok() for result in found]
    documented = {(operation.method.upper(), operation.path) for operation in operations}
    assert documented == {(method, path) for method, path, is_told in routes() if is_told}
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=10,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def check(case):
            assert case.call(headers=key).status_code < 500

        check()
    path, questions = scenes[0]
    messages = [{"role": "user", "content": [file_url(path), text(questions[0].text)]}]
    asked = server.http.post("/v1/chat/completions", json={"messages": messages}, headers=key)
    assert answer_of(asked)
    assert not [name for name in os.listdir(server.service.blobs.folder) if name.endswith("part")]
