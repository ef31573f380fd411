"""The client over a transport that answers what a test says: what is sent again, what never is, and what an answer means."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest

from orchestrator.backends.runai.client import LOG_BYTES, WAITS_S, Client
from orchestrator.backends.runai.faults import NotFound, Refused, Unauthorized
from orchestrator.backends.runai.settings import Credentials
from orchestrator.backends.runai.token import V1, V2
from orchestrator.clock import FakeClock
from orchestrator.errors import Deferred, EnvironmentProblem, OrchestratorError, SubmitUncertain, Unobservable

SECRET = "s3cr3t-of-the-account"
WORKLOADS = "/api/v1/workloads"
Answer = httpx.Response | Exception


def ok(body: object = None, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json={} if body is None else body)


def error(status: int, message: str = "no", **more: object) -> httpx.Response:
    return httpx.Response(status, json={"code": status, "message": message, **more})


@dataclass
class Server:
    """Answers in order, the last one for ever; tokens it gives by itself."""

    answers: list[Answer] = field(default_factory=lambda: [ok()])
    token: Callable[[httpx.Request], httpx.Response] | None = None
    asked: list[httpx.Request] = field(default_factory=list)
    tokens: list[httpx.Request] = field(default_factory=list)
    ttl: int = 3600

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path in (V1, V2):
            self.tokens.append(request)
            return self.token(request) if self.token else self._token(request)
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def _token(self, request: httpx.Request) -> httpx.Response:
        value = f"jwt-{len(self.tokens)}"
        if request.url.path == V2:
            return ok({"access_token": value, "expires_in": self.ttl, "token_type": "Bearer"})
        return ok({"accessToken": value, "expiresIn": self.ttl})


def client_of(server: Server, clock: FakeClock | None = None) -> Client:
    transport = httpx.MockTransport(server)
    return Client(
        "http://runai.test", lambda: Credentials("account", SECRET), clock or FakeClock(), transport=transport
    )


# ---- what is sent again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [error(503), error(429), error(500), httpx.ReadTimeout("slow"), httpx.ConnectError("no")]
)
def test_a_get_is_repeated_after_no_answer_or_a_server_in_trouble(first: Answer) -> None:
    server = Server([first, ok({"workloads": []})])
    assert client_of(server).get(WORKLOADS) == {"workloads": []}
    assert len(server.asked) == 2


def test_a_get_gives_up_after_some_tries_and_says_that_nothing_is_known() -> None:
    server, clock = Server([error(503, "Please try again in few minutes.")]), FakeClock()
    began = clock.now()
    with pytest.raises(Unobservable, match="Please try again in few minutes"):
        client_of(server, clock).get(WORKLOADS)
    assert len(server.asked) == len(WAITS_S) + 1
    assert clock.now() - began == sum(WAITS_S)


def test_retry_after_is_followed_within_reason() -> None:
    clock = FakeClock()
    slow = httpx.Response(429, headers={"Retry-After": "7"}, json={})
    absurd = httpx.Response(429, headers={"Retry-After": "86400"}, json={})
    began = clock.now()
    client_of(Server([slow, absurd, ok()]), clock).get(WORKLOADS)
    assert clock.now() - began == 7 + 30


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_positive_no_is_not_repeated(status: int) -> None:
    server = Server([error(status)])
    with pytest.raises(Refused):
        client_of(server).get(WORKLOADS)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (error(503), SubmitUncertain),
        (error(500), SubmitUncertain),
        (httpx.ReadTimeout("slow"), SubmitUncertain),
        (httpx.RemoteProtocolError("cut"), SubmitUncertain),
        (httpx.WriteError("cut"), SubmitUncertain),
        (httpx.ConnectError("refused"), Deferred),
        (httpx.ConnectTimeout("nobody"), Deferred),
        (error(429), Deferred),
        (error(400), Refused),
        (error(403), Refused),
        (error(404), NotFound),
        (httpx.Response(302, headers={"Location": "/login"}), Refused),
    ],
)
def test_a_post_goes_out_once_whatever_comes_of_it(answer: Answer, meaning: type[Exception]) -> None:
    server = Server([answer])
    with pytest.raises(meaning):
        client_of(server).post(WORKLOADS, {"name": "x"})
    assert len(server.asked) == 1


def test_a_post_without_a_token_was_never_sent() -> None:
    server = Server(token=lambda _: error(503))
    with pytest.raises(Deferred):
        client_of(server).post(WORKLOADS, {})
    assert server.asked == []


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_the_token_request_has_oauths_form_and_is_made_once() -> None:
    server = Server()
    client = client_of(server)
    client.get(WORKLOADS)
    client.get(WORKLOADS)
    (asked,) = server.tokens
    assert asked.url.path == V2
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(httpx.QueryParams(asked.content.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "account",
        "client_secret": SECRET,
    }
    assert server.asked[1].headers["authorization"] == "Bearer jwt-1"


@pytest.mark.parametrize(
    "missing", [error(404), error(405), error(401, "Issuer is not familiar."), httpx.Response(404, text="<p>")]
)
def test_where_there_is_no_oauth_form_the_older_one_is_used(missing: httpx.Response) -> None:
    server = Server()
    server.token = lambda request: missing if request.url.path == V2 else server._token(request)
    client = client_of(server)
    client.get(WORKLOADS)
    assert client.token().form == V1
    assert json.loads(server.tokens[-1].content) == {
        "grantType": "client_credentials",
        "clientID": "account",
        "clientSecret": SECRET,
    }


def test_refused_credentials_are_said_to_be_so_and_not_tried_in_another_form() -> None:
    server = Server(
        token=lambda _: httpx.Response(401, json={"error": "invalid_client", "error_description": "unknown"})
    )
    with pytest.raises(Unauthorized, match="the credentials are refused: invalid_client; unknown"):
        client_of(server).get(WORKLOADS)
    assert len(server.tokens) == 1


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_revoked_token_is_replaced_once(method: str) -> None:
    server = Server([error(401), ok({"fine": True})])
    assert getattr(client_of(server), method)(WORKLOADS) == {"fine": True}
    assert [request.headers["authorization"] for request in server.asked] == ["Bearer jwt-1", "Bearer jwt-2"]


def test_a_second_401_is_the_answer() -> None:
    server = Server([error(401)])
    with pytest.raises(Unauthorized):
        client_of(server).post(WORKLOADS, {})
    assert len(server.asked) == 2


def test_a_token_is_renewed_a_minute_before_its_end() -> None:
    server, clock = Server(ttl=600), FakeClock()
    client = client_of(server, clock)
    client.get(WORKLOADS)
    clock.sleep(539)
    client.get(WORKLOADS)
    assert len(server.tokens) == 1
    clock.sleep(2)
    client.get(WORKLOADS)
    assert len(server.tokens) == 2


def test_the_secret_is_read_anew_for_each_token() -> None:
    server, clock, secrets = Server(ttl=120), FakeClock(), iter(["old", "new"])
    client = Client(
        "http://runai.test",
        lambda: Credentials("account", next(secrets)),
        clock,
        transport=httpx.MockTransport(server),
    )
    client.get(WORKLOADS)
    clock.sleep(100)
    client.get(WORKLOADS)
    assert [b"new" in request.content for request in server.tokens] == [False, True]


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_refusal_names_call_status_message_details_and_the_sites_policy() -> None:
    issues = [{"field": "spec.image", "rule": "options", "details": "not an approved image"}]
    server = Server([error(400, "Validation failed", details="1 issue", complianceIssues=issues)])
    with pytest.raises(Refused) as caught:
        client_of(server).post("/api/v1/workloads/trainings", {})
    for words in ("POST /api/v1/workloads/trainings", "400", "Validation failed", "1 issue", "spec.image", "approved"):
        assert words in str(caught.value)


@pytest.mark.parametrize("status", [400, 403, 500])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_server_that_repeats_what_it_was_told_does_not_get_the_secret_into_a_message(
    status: int, method: str
) -> None:
    server = Server([error(status, f"bad token jwt-1 of {SECRET}")])
    with pytest.raises(OrchestratorError) as caught:
        getattr(client_of(server), method)(WORKLOADS)
    shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert SECRET not in shown
    assert "jwt-1" not in shown
    assert "***" in shown


def test_refused_credentials_do_not_repeat_the_secret() -> None:
    told = {"error": "invalid_client", "error_description": f"no account with {SECRET}"}
    with pytest.raises(Unauthorized) as caught:
        client_of(Server(token=lambda _: httpx.Response(400, json=told))).get(WORKLOADS)
    assert SECRET not in str(caught.value)


def test_nothing_that_holds_a_secret_shows_it() -> None:
    client = client_of(Server())
    assert SECRET not in repr(Credentials("account", SECRET))
    assert "jwt" not in repr(client.token())


@pytest.mark.parametrize("body", ["<html>maintenance</html>", "", "[1, 2"])
def test_an_answer_that_is_no_json_is_no_observation(body: str) -> None:
    with pytest.raises(Unobservable):
        client_of(Server([httpx.Response(200, text=body)])).get(WORKLOADS)


@pytest.mark.parametrize(
    ("status", "said", "taken"),
    [
        (409, "conflict", True),
        (400, "workload with name 'x' already exists in this project", True),
        (400, "spec.image is required", False),
        (403, "already exists somewhere, but you may not see it", False),
    ],
)
def test_a_taken_name_is_known_by_words_where_the_status_does_not_tell(status: int, said: str, taken: bool) -> None:
    with pytest.raises(Refused) as caught:
        client_of(Server([error(status, said)])).post(WORKLOADS, {})
    assert caught.value.says_name_is_taken is taken


# ---- answers that are not Run:ai's -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        httpx.Response(200, text="<html>please log in</html>"),
        httpx.Response(200, content=b"[" * 200_000),
        httpx.DecodingError("no gzip"),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(404, text="default backend - 404"),
        httpx.Response(403, text="<html>blocked</html>"),
    ],
)
def test_what_stands_in_front_of_the_control_plane_says_nothing_about_a_workload(garbage: Answer) -> None:
    with pytest.raises(Unobservable):
        client_of(Server([garbage])).get(WORKLOADS)
    with pytest.raises(Unobservable):
        client_of(Server([garbage])).get(f"{WORKLOADS}/1")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, text="default backend - 404"),
        httpx.DecodingError("no gzip"),
    ],
)
def test_a_post_that_met_something_else_may_have_worked(answer: Answer) -> None:
    server = Server([answer])
    with pytest.raises(SubmitUncertain):
        client_of(server).post(f"{WORKLOADS}/trainings", {})
    assert len(server.asked) == 1


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "é", "", 7, None])
def test_a_token_that_no_header_can_carry_is_none(value: object) -> None:
    server = Server(token=lambda _request: ok({"access_token": value, "expires_in": 3600}))
    with pytest.raises(Unobservable, match="no token in the answer"):
        client_of(server).get(WORKLOADS)


@pytest.mark.parametrize("ttl", ["soon", -1, 1e300, None, True])
def test_a_lifetime_that_makes_no_sense_is_a_short_one(ttl: object) -> None:
    clock = FakeClock()
    server = Server(token=lambda _request: ok({"access_token": "t", "expires_in": ttl}))
    client = client_of(server, clock)
    client.get(WORKLOADS)
    clock.sleep(3600)
    client.get(WORKLOADS)
    assert len(server.tokens) == 2


@pytest.mark.parametrize("said", ["²", "Wed, 21 Oct 2026 07:28:00 GMT", "-3", "soon"])
def test_a_retry_after_that_is_no_number_of_seconds_is_passed_over(said: str) -> None:
    clock = FakeClock()
    limited = httpx.Response(429, headers=[(b"Retry-After", said.encode("latin-1"))], json={})
    began = clock.now()
    client_of(Server([limited, ok()]), clock).get(WORKLOADS)
    assert clock.now() - began == WAITS_S[0]


def test_a_log_is_read_no_further_than_what_is_wanted_of_it() -> None:
    read = 0

    class Endless(httpx.SyncByteStream):
        def __iter__(self):
            nonlocal read
            while True:
                read += 1
                yield b"x" * 2**20

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == V2:
            return ok({"access_token": "jwt-1", "expires_in": 3600})
        return httpx.Response(200, stream=Endless())

    client = Client(
        "http://runai.test", lambda: Credentials("a", SECRET), FakeClock(), transport=httpx.MockTransport(answer)
    )
    assert len(client.content("http://cluster.test/logs")) == LOG_BYTES
    assert read == LOG_BYTES / 2**20


def test_a_log_is_asked_for_again_with_a_new_token_where_the_old_one_was_revoked() -> None:
    server = Server([error(401), httpx.Response(200, text="a line")])
    assert client_of(server).content("http://cluster.test/logs") == b"a line"
    assert len(server.tokens) == 2
    with pytest.raises(Unobservable, match="no address"):
        client_of(server).content("http://cluster.test:port/logs")


def test_an_answer_that_trickles_comes_to_an_end() -> None:
    clock = FakeClock()

    class Slow(httpx.SyncByteStream):
        def __iter__(self):
            while True:
                clock.sleep(20)
                yield b" "

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == V2:
            return ok({"access_token": "jwt-1", "expires_in": 3600})
        return httpx.Response(200, stream=Slow())

    client = Client("http://runai.test", lambda: Credentials("a", SECRET), clock, transport=httpx.MockTransport(answer))
    with pytest.raises(SubmitUncertain, match="no end of the answer within 120 s"):
        client.post(f"{WORKLOADS}/trainings", {})


def test_while_nobody_answers_each_get_takes_one_try() -> None:
    server, clock = Server([httpx.ConnectTimeout("nobody")]), FakeClock()
    client = client_of(server, clock)
    for _ in range(3):
        with pytest.raises(Unobservable):
            client.get(WORKLOADS)
    assert len(server.asked) == len(WAITS_S) + 1 + 2
    server.answers = [ok()]
    client.get(WORKLOADS)
    server.answers = [httpx.ReadTimeout("slow"), ok()]
    client.get(WORKLOADS)


# ---- secrets, addresses and certificates -----------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["pa$$ w/ord+&", 'quo"te\\back', SECRET])
def test_a_secret_is_hidden_in_every_form_that_a_server_could_repeat(secret: str) -> None:
    forms = (secret, quote(secret), quote_plus(secret), json.dumps(secret))

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == V2:
            return ok({"access_token": "jwt-1", "expires_in": 3600})
        return error(400, "x" * 590 + " ".join((*forms, request.headers["Authorization"])))

    client = Client(
        "http://runai.test", lambda: Credentials("a", secret), FakeClock(), transport=httpx.MockTransport(answer)
    )
    for where in ("x" * 590, ""):
        with pytest.raises(Refused) as caught:
            client.post(where or WORKLOADS, {})
        said = str(caught.value)
        assert not any(form[:8] in said for form in forms), "not even its beginning, where the message is cut"
        assert "jwt-1" not in said


def test_an_address_that_is_none_and_certificates_that_are_none_are_said_at_once(tmp_path: Path) -> None:
    account, clock = Credentials("a", SECRET), FakeClock()
    with pytest.raises(EnvironmentProblem, match="is none"):
        Client("http://runai.test:port", lambda: account, clock)
    for content, why in ((None, "No such file"), ("no certificate", "cannot be used")):
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_text(content)
        with pytest.raises(EnvironmentProblem, match=f"runai.ca_file: .*{why}"):
            Client("https://runai.test", lambda: account, clock, ca_file=str(path))
    Client("https://runai.test", lambda: account, clock).close()


@pytest.mark.parametrize(
    ("why", "way_out"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed", "in runai.ca_file"),
        ("[Errno 111] Connection refused", "can it be reached from here"),
    ],
)
def test_no_connection_is_said_with_what_to_do(why: str, way_out: str) -> None:
    with pytest.raises(Unobservable, match=way_out):
        client_of(Server([httpx.ConnectError(why)])).get(WORKLOADS)
