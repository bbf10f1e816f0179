"""Authors' routes on a real node: typed, ordered, once, guarded, shaped, and shared with a legacy."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import pytest
from openapi_spec_validator import validate
from tests.integration.gateway_nodes import at, operator, raw, serving
from tests.integration.old_service import upstream

from headrace.client.address import read_key
from headrace.client.http import Client
from headrace.testing.served import ask

APP = '''
from __future__ import annotations

from typing import Any

import msgspec

from headrace import *
from headrace.webhooks import GitHub

app = App("shop")
counts = app.store("counts", int, default=0)


class Order(msgspec.Struct):
    item: str
    quantity: int


class Search(msgspec.Struct):
    q: str
    limit: int = 10


@app.function(Http("POST", "/orders/{id:int}", headers=("x-tenant",)))
def place(event: Event[Order], context: Context):
    """Place an order."""
    request = Request.of(event)
    placed = context.store(counts)["placed"] + 1
    context.store(counts)["placed"] = placed
    answer = {"id": request.params["id"], "item": event.value.item, "placed": placed,
              "tenant": request.headers.get("x-tenant"), "query": request.query}
    return Reply(answer, status=201, headers={"x-order": str(request.params["id"])})


@app.function(Http("GET", "/orders/{q}/search", cors=Cors("https://a.test")))
def search(event: Event[Search]):
    return [event.value.q] * event.value.limit


@app.function(Http("GET", "/count/{n:int}"))
def count(event: Event):
    for number in range(event.value["n"]):
        yield number


@app.function(Http("POST", "/echo"))
def echo(event: Event[bytes]):
    return Reply(event.value, media="text/plain", headers={"set-cookie": "a=b"})


@app.function(Http("POST", "/mirror"))
def mirror(event: Event[Any]):
    return event.value


@app.function(Http("GET", "/placed"))
def placed(event: Event, context: Context):
    return context.store(counts)["placed"]


@app.function(Http("POST", "/late", timeout=0.3))
def late(event: Event[Any]):
    import time
    time.sleep(5)


@app.function(
    Http("POST", "/later/{who}", mode="async", auth=Bearer("orders:write"), key="path.who"),
    retry=Retry(attempts=1),
)
def later(event: Event[Order], context: Context):
    if event.value.quantity < 0:
        raise ValueError("negative")
    context.state.put(f"later/{event.key}", context.state.get(f"later/{event.key}", 0) + 1)


@app.function(Webhook("/hooks/in", GitHub("HOOK")), batch_size=10)
def hook(events: Batch[Any], context: Context):
    for event in events:
        seen = context.state.get(f"hook/{event.value['n']}", 0)
        context.state.put(f"hook/{event.value['n']}", seen + 1)


@app.function(Http("GET", "/strangled/{id}", legacy=Legacy("UPSTREAM", share=SHARE, sticky="path.id")))
def strangled(event: Event):
    return {"by": "new"}


def before(request):
    if request.path == "/forbidden":
        return Reply({"no": True}, status=403)
    request.headers["x-shaped"] = "yes"
    request.query["added"] = "1"
    request.body = request.body.upper()
    return request


def after(reply):
    found = msgspec.json.decode(reply.body)
    found["status"] = reply.status
    return Reply(found, status=202, headers={"x-after": "yes"})


@app.function(Http("POST", "/shown", headers=["authorization"]))
def shown(event: Event):
    return Request.of(event).headers.get("authorization")


app.proxy("/legacy", upstream="UPSTREAM/base", before=before, after=after)
app.proxy("/plain", upstream="UPSTREAM", auth=Bearer("plain"))
app.proxy("/bare", upstream="UPSTREAM")
app.proxy("/gone", upstream="http://127.0.0.1:1")
'''


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("routes")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o755)
    (folder / "headrace.toml").write_text('[secrets]\nHOOK = "file:hook"\n')
    (folder / "hook").write_text("known\n")
    (folder / "hook").chmod(0o600)
    with upstream() as old:
        app = APP.replace("UPSTREAM", old).replace("SHARE", "0.5")
        with serving(folder, app=app) as found:
            yield found


TEA = {"item": "tea", "quantity": 1}


def test_a_typed_route_answers_with_what_the_function_says(url: str) -> None:
    status, headers, body = ask("POST", f"{url}/orders/7?a=1&a=2&b=%C3%A9", TEA, x_tenant="acme")
    assert status == 201
    assert headers["x-order"] == "7"
    assert body["id"] == 7
    assert body["tenant"] == "acme"
    assert body["query"] == {"a": ["1", "2"], "b": "é"}


def test_a_body_of_another_type_is_refused_with_the_place(url: str) -> None:
    status, _, body = ask("POST", f"{url}/orders/7", {"item": "tea", "quantity": "one"})
    assert status == 400
    assert body["errors"] == [{"path": "/quantity", "message": "must be an integer, not a string"}]
    assert ask("POST", f"{url}/orders/seven", TEA)[0] == 400
    assert ask("POST", f"{url}/orders/7", b"{")[0] == 400
    assert ask("PUT", f"{url}/orders/7", TEA)[:2][0] == 405
    assert ask("POST", f"{url}/orders/7/more", TEA)[0] == 404


def test_a_call_that_only_reads_sees_what_others_have_written(url: str) -> None:
    for _ in range(5):
        placed = ask("POST", f"{url}/orders/1", TEA)[2]["placed"]
        assert ask("GET", f"{url}/placed")[2] == placed


def test_a_repeated_idempotency_key_gets_the_first_answer(url: str) -> None:
    first = ask("POST", f"{url}/orders/1", TEA, idempotency_key="once")
    again = ask("POST", f"{url}/orders/1", TEA, idempotency_key="once")
    other = ask("POST", f"{url}/orders/1", TEA, idempotency_key="twice")
    assert first[0] == again[0] == 201
    assert first[2] == again[2]
    assert other[2]["placed"] == first[2]["placed"] + 1


def test_a_query_is_typed_and_the_path_goes_before_it(url: str) -> None:
    assert ask("GET", f"{url}/orders/tea/search?limit=2&q=other")[2] == ["tea", "tea"]
    status, _, body = ask("GET", f"{url}/orders/tea/search?limit=many")
    assert status == 400
    assert body["errors"][0]["path"] == "/limit"


def test_a_generator_is_a_list_events_or_lines_as_the_client_likes(url: str) -> None:
    assert ask("GET", f"{url}/count/3")[2] == [0, 1, 2]
    assert ask("GET", f"{url}/count/2", accept="text/event-stream")[2] == b"data: 0\n\ndata: 1\n\n"
    assert ask("GET", f"{url}/count/2", accept="application/x-ndjson")[2] == b"0\n1\n"


def test_bytes_go_in_and_out_as_they_are(url: str) -> None:
    status, headers, body = ask("POST", f"{url}/echo", b"\xff\x00raw")
    assert (status, body) == (200, b"\xff\x00raw")
    assert headers["set-cookie"] == "a=b"


def test_what_a_function_passes_on_cannot_pose_as_a_reply(url: str) -> None:
    evil = {"status": 302, "headers": {"location": "http://evil.test"}, "media": "text/html"}
    status, headers, body = ask("POST", f"{url}/mirror", evil)
    assert (status, body) == (200, evil)
    assert "location" not in headers


def test_a_route_that_is_late_is_ended_at_its_own_deadline(url: str) -> None:
    began = time.monotonic()
    status, _, body = ask("POST", f"{url}/late", {})
    assert status == 504
    assert body["code"] == "call-failed"
    assert time.monotonic() - began < 4


def test_pages_of_other_origins_come_in_only_where_the_route_says_so(url: str) -> None:
    page = f"{url}/orders/tea/search"
    assert (
        ask("GET", page, origin="https://a.test")[1]["access-control-allow-origin"]
        == "https://a.test"
    )
    assert ask("GET", page, origin="https://evil.test")[0] == 403
    assert ask("POST", f"{url}/orders/1", TEA, origin="https://a.test")[0] == 403
    given = {"access_control_request_method": "GET"}
    status, headers, _ = ask("OPTIONS", page, origin="https://a.test", **given)
    assert status == 204
    assert headers["access-control-allow-methods"] == "GET"
    assert "content-length" not in headers
    assert ask("OPTIONS", page, origin="https://evil.test", **given)[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/orders/tea/search?limit=many", 400),
        ("GET", "/orders/%ff/search", 400),
        ("PATCH", "/orders/tea/search", 405),
        ("OPTIONS", "/orders/tea/search", 405),
    ],
)
def test_a_page_that_may_call_a_route_can_read_why_it_was_refused(
    url: str, method: str, path: str, status: int
) -> None:
    refused = ask(method, url + path, origin="https://a.test")
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (
        status,
        "https://a.test",
    )
    other = ask(method, url + path, origin="https://evil.test")
    assert "access-control-allow-origin" not in other.headers


def created(url: str, name: str, scope: str) -> Any:
    """A token, made by the operator."""
    with operator(url) as client:
        return client.post("tokens", data={"name": name, "scopes": [scope]})


def test_a_kept_request_is_guarded_by_a_token_and_can_be_asked_after(url: str) -> None:
    assert ask("POST", f"{url}/later/ada", TEA)[0] == 401
    made = created(url, "till", "orders:write")
    good = f"Bearer {made['token']}"
    wrong = created(url, "reader", "read")["token"]
    status, headers, _ = ask("POST", f"{url}/later/ada", TEA, authorization=f"Bearer {wrong}")
    assert status == 403
    assert "www-authenticate" not in headers
    status, headers, _ = ask("POST", f"{url}/later/ada", TEA, authorization=good)
    assert status == 202
    assert wait_for(url + headers["location"], "committed")
    bad = ask("POST", f"{url}/later/ada", {**TEA, "quantity": -1}, authorization=good)
    assert wait_for(url + bad[1]["location"], "dead")
    once = [
        ask("POST", f"{url}/later/bob", TEA, authorization=good, idempotency_key="k")[2]
        for _ in range(3)
    ]
    assert [each["duplicate"] for each in once] == [False, True, True]
    with operator(url) as client:
        client.request("DELETE", ("tokens", made["id"]))
    assert ask("POST", f"{url}/later/ada", TEA, authorization=good)[0] == 401
    with operator(url) as client:
        assert client.get("state", "shop", "shop.later", "later/ada")["value"] == 1


def wait_for(place: str, wanted: str, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while (found := ask("GET", place)[2])["status"] != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return True


def test_a_proxy_shapes_requests_and_answers(url: str) -> None:
    status, headers, body = ask(
        "POST",
        f"{url}/legacy/a/b?x=1",
        b"hello",
        authorization="Bearer own",
        te="trailers",
        x_forwarded_for="6.6.6.6",
    )
    assert (status, body["status"], body["by"]) == (202, 200, "old")
    assert headers["x-after"] == "yes"
    assert body["path"] == "/base/a/b?x=1&added=1"
    assert body["body"] == "HELLO"
    got = body["headers"]
    assert got["x-shaped"] == "yes"
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["authorization"] == "Bearer own"
    assert "te" not in got
    assert ask("GET", f"{url}/legacy/forbidden")[0] == 403


def test_a_head_through_a_proxy_tells_the_length_of_the_body_that_is_not_sent(url: str) -> None:
    status, headers, body = ask("HEAD", f"{url}/bare/x")
    assert (status, headers["content-length"], headers["content-type"], body) == (
        200,
        "12345",
        "image/png",
        b"",
    )
    assert "content-length" not in ask("HEAD", f"{url}/bare/unknown")[1]


async def test_what_comes_several_times_is_handed_on_whole(url: str) -> None:
    sent = (
        b"POST /legacy/a?q=a&q=b&x=1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        b"cookie: a=1\r\ncookie: b=2\r\nx-many: 1\r\nx-many: 2\r\ncontent-length: 0\r\n\r\n"
    )
    body = json.loads((await raw(url, sent)).partition(b"\r\n\r\n")[2])
    assert body["path"] == "/base/a?q=a&q=b&x=1&added=1"
    assert body["headers"]["cookie"] == "a=1; b=2"
    assert body["headers"]["x-many"] == "1, 2"


def test_a_guarded_proxy_keeps_the_nodes_token_to_itself(url: str) -> None:
    assert ask("GET", f"{url}/plain/x")[0] == 401
    token = created(url, "p", "plain")["token"]
    status, headers, body = ask("GET", f"{url}/plain/x%2Fy?q=1", authorization=f"Bearer {token}")
    assert status == 200
    assert body["path"] == "/x%2Fy?q=1"
    assert "authorization" not in body["headers"]
    assert "x-hop" not in headers
    assert ask("GET", f"{url}/plain/../x", authorization=f"Bearer {token}")[0] == 400
    assert ask("GET", f"{url}/plain/%2e%2e/x", authorization=f"Bearer {token}")[0] == 400


def test_a_service_that_is_away_is_a_bad_gateway(url: str) -> None:
    status, _, body = ask("GET", f"{url}/gone")
    assert (status, body["code"]) == (502, "upstream-failed")


def test_what_lets_a_client_in_here_goes_on_to_nobody(url: str) -> None:
    token = created(url, "r", "read")["token"]
    for brought, seen in ((token, False), (read_key(Path(at(url)[1])), False), ("own", True)):
        places = ("/legacy/a", *(f"/strangled/{number}" for number in range(20)))
        for place in places:
            answer = ask("GET", url + place, authorization=f"bearer  {brought}")[2]
            if answer["by"] == "old":
                assert ("authorization" in answer["headers"]) is seen, (place, brought)
        told = ask("POST", f"{url}/shown", {}, authorization=f"Bearer {brought}")[2]
        assert (told is not None) is seen


def test_a_strangled_route_shares_its_customers_and_keeps_them(url: str) -> None:
    def systems() -> list[str]:
        answers = [ask("GET", f"{url}/strangled/{number}") for number in range(60)]
        assert [answer for answer in answers if answer[0] != 200] == []
        return [answer[2]["by"] for answer in answers]

    first = systems()
    assert 15 <= first.count("old") <= 45
    assert systems() == first


@pytest.mark.parametrize("step", ["..", "%2e%2e", "..%2f..", "%2e", "..%5c..", "a%2f..%2fb"])
def test_no_path_climbs_to_the_system_behind(url: str, step: str) -> None:
    assert ask("GET", f"{url}/strangled/{step}")[0] == 400


def test_the_map_says_what_routes_answer_and_what_guards_them(url: str) -> None:
    with operator(url) as client:
        said = {row["trigger"] for row in client.get("map")["map"]}
    assert "http POST /later/{who}, async, token for orders:write" in said
    assert "webhook /hooks/in, github" in said


def test_the_routes_are_described_as_valid_openapi(url: str) -> None:
    found = ask("GET", f"{url}/openapi.json")[2]
    validate(found)
    assert found["openapi"].startswith("3.1")
    operation = found["paths"]["/orders/{id}"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": found["components"]}
    jsonschema.validate(TEA, whole)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"item": "tea"}, whole)
    (limit,) = (
        each
        for each in found["paths"]["/orders/{q}/search"]["get"]["parameters"]
        if each["name"] == "limit"
    )
    assert limit == {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "default": 10},
    }
    assert found["paths"]["/later/{who}"]["post"]["security"] == [{"token": []}]
    run = subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", "export", "openapi", *at(url)],
        capture_output=True,
        check=True,
    )
    assert json.loads(run.stdout) == found


def test_tokens_are_made_listed_and_revoked_on_the_command_line(url: str) -> None:
    def headrace(*arguments: str) -> str:
        command = [sys.executable, "-m", "headrace.cli.main", "token", *arguments, *at(url)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    text = headrace("create", "till", "--scope", "plain", "--expires", "1h").strip()
    assert ask("GET", f"{url}/plain/x", authorization=f"Bearer {text}")[0] == 200
    name = text.split("_")[1]
    assert text.rpartition("_")[2] not in headrace("list")
    assert name in headrace("list")
    assert "counts no more" in headrace("revoke", name)
    assert ask("GET", f"{url}/plain/x", authorization=f"Bearer {text}")[0] == 401


@pytest.mark.parametrize(
    "label",
    [
        "append:before-commit:7",
        "append:after-commit:7",
        "commit:after-write:9",
        "commit:before-fsync:9",
        "commit:after-fsync:9",
        "pump:after-invoke:4",
        "pump:after-commit:4",
    ],
)
def test_a_node_killed_between_two_steps_loses_and_doubles_no_message(
    tmp_path: Path, label: str
) -> None:
    """The sender repeats what was not acknowledged, as every sender does."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o755)
    (tmp_path / "headrace.toml").write_text('[secrets]\nHOOK = "file:hook"\n')
    (tmp_path / "hook").write_text("known\n")
    (tmp_path / "hook").chmod(0o600)
    app = APP.replace("UPSTREAM", "http://127.0.0.1:1").replace("SHARE", "0")
    (tmp_path / "app.py").write_text(app)
    waiting = list(range(40))
    acknowledged: list[int] = []
    environ = {name: value for name, value in os.environ.items() if "HEADRACE" not in name}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    for life in range(2):
        extra = {"HEADRACE_FAILPOINT": label} if life == 0 else {}
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "headrace.cli.main",
                "serve",
                "app.py",
                "--port",
                str(port),
                "--data",
                "data",
            ],
            cwd=tmp_path,
            env=environ | extra,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _until_up(url, process)
            while waiting:
                if not _deliver(url, waiting[0]):
                    break
                acknowledged.append(waiting.pop(0))
            if life == 0:
                assert process.wait(timeout=20) == -signal.SIGKILL, "the failpoint was not reached"
                continue
            assert waiting == []
            with Client(url, token=read_key(tmp_path / "data")) as client:
                deadline = time.monotonic() + 20
                while sum(row["lag"] for row in client.get("lag")["lag"]):
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                rows = client.get("state", "shop", "shop.hook", prefix="hook/", limit=1_000)[
                    "state"
                ]
            assert {row["key"]: row["value"] for row in rows} == {f"hook/{n}": 1 for n in range(40)}
        finally:
            process.kill()
            process.wait()


def _until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if ask("GET", f"{url}/readyz")[0] == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _deliver(url: str, number: int) -> bool:
    body = json.dumps({"n": number}).encode()
    signed = "sha256=" + hmac.new(b"known", body, hashlib.sha256).hexdigest()
    try:
        status, _, _ = ask("POST", f"{url}/hooks/in", body, x_hub_signature_256=signed)
    except (OSError, ValueError):
        return False
    except Exception as error:  # noqa: BLE001 - the connection broke off in the middle
        assert "http" in type(error).__module__, error  # noqa: PT017 - any other is a fault
        return False
    return status == 202
