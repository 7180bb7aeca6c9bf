"""What the web layer adds: the table of errors, requests, bounded streams."""

import logging
from collections.abc import Generator
from time import monotonic
from typing import Any, NoReturn

import pytest
from flask import Flask, Response, request

from reactorcide.domain import errors as domain_errors
from reactorcide.domain.accounts import Anonymous
from reactorcide.domain.errors import Busy, InvalidInput, NotFound, ReactorcideError, StoreError
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.metrics import Metrics
from reactorcide.web import errors, requests, streams
from reactorcide.web.streams import StreamSlots, stream


@pytest.fixture
def app() -> Flask:
    app = Flask("test")
    requests.install(app, Metrics())
    errors.install(app)
    return app


def pieces(*chunks: bytes) -> Generator[bytes, None, None]:
    yield from chunks


def all_errors() -> list[type[ReactorcideError]]:
    return [
        item
        for item in vars(domain_errors).values()
        if isinstance(item, type) and issubclass(item, ReactorcideError)
    ]


@pytest.mark.parametrize("error", all_errors())
def test_every_error_has_the_same_shape(app: Flask, error: type[ReactorcideError]) -> None:
    @app.get("/")
    def fail() -> NoReturn:
        raise error("this is why")

    response = app.test_client().get("/")
    assert response.is_json
    assert {"error", "message"} <= set(response.json or {})
    assert response.headers["X-Request-ID"]
    if response.status_code == 500:
        assert "this is why" not in response.text
    else:
        assert (response.json or {})["message"] == "this is why"


def test_status_code_of_each_error(app: Flask) -> None:
    raised: list[Exception] = []

    @app.get("/")
    def fail() -> NoReturn:
        raise raised[-1]

    client = app.test_client()
    for error, status, code in (
        (InvalidInput("m", "name"), 400, "invalid_input"),
        (NotFound("m"), 404, "not_found"),
        (StoreError("m"), 503, "unavailable"),
        (Busy("m", retry_after_s=7), 503, "unavailable"),
        (KeyError("secret"), 500, "internal_error"),
    ):
        raised.append(error)
        response = client.get("/")
        assert (response.status_code, (response.json or {})["error"]) == (status, code)
        assert "secret" not in response.text
        assert response.headers.get("Retry-After") == ("7" if isinstance(error, Busy) else None)
    assert (client.get("/nowhere").json or {})["error"] == "not_found"
    wrong_method = client.delete("/")
    assert ((wrong_method.json or {})["error"], "GET" in wrong_method.headers["Allow"]) == (
        "method_not_allowed",
        True,
    )


def test_error_names_the_field(app: Flask) -> None:
    @app.get("/")
    def fail() -> NoReturn:
        raise InvalidInput("name is too long", "name")

    assert (app.test_client().get("/").json or {})["details"] == [
        {"field": "name", "message": "name is too long"}
    ]


@pytest.mark.parametrize("sent", ["", "x" * 200, "a b", "<script>", "ü"])
def test_malformed_request_id_is_replaced(app: Flask, sent: str) -> None:
    response = app.test_client().get(
        "/nowhere", headers={"X-Request-ID": sent.encode("utf-8").decode("latin-1")}
    )
    assert response.headers["X-Request-ID"] not in ("", sent)


def test_valid_request_id_is_used_and_logged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "reactorcide.web"):
        response = app.test_client().get("/nowhere", headers={"X-Request-ID": "build-17"})
    assert response.headers["X-Request-ID"] == "build-17"
    assert [vars(record)["request_id"] for record in caplog.records] == ["build-17"]


class TestStreams:
    """Long answers."""

    @staticmethod
    def open(
        app: Flask,
        slots: StreamSlots,
        chunks: Generator[bytes, None, None],
        notifier: LocalNotifier | None = None,
    ) -> Response:
        with app.test_request_context():
            return stream(slots, ("u",), notifier or LocalNotifier(), chunks, check=lambda: None)

    def test_stream_above_the_limit_is_busy_until_one_closes(self, app: Flask) -> None:
        slots = StreamSlots(1)
        first = self.open(app, slots, pieces(b"x"))
        with pytest.raises(Busy):
            self.open(app, slots, pieces(b"x"))
        first.close()
        self.open(app, slots, pieces(b"x")).close()

    def test_one_user_gets_half_of_the_slots(self) -> None:
        slots = StreamSlots(4)
        assert [slots.try_take(("greedy",)) for _ in range(3)] == [True, True, False]
        assert [slots.try_take((user_id,)) for user_id in ("a", "b", "c")] == [True, True, False]
        slots.release(("greedy",))
        assert [slots.try_take(("greedy",)), slots.try_take(("c",))] == [True, False]

    def test_clients_without_a_token_get_half_of_the_slots_and_a_network_half_of_these(self) -> None:
        slots = StreamSlots(8)
        greedy, same_network, other, third = (
            Anonymous.at(address, None).share
            for address in ("2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2")
        )
        assert [slots.try_take(share) for share in (greedy, same_network, greedy)] == [True, True, False]
        assert [slots.try_take(share) for share in (other, third, third)] == [True, True, False]
        slots.release(same_network)
        assert [slots.try_take(share) for share in (third, third)] == [True, False]
        # Users have the other half.
        assert [slots.try_take(("ann",)) for _ in range(5)] == [True] * 4 + [False]

    def test_without_slots_all_streams_are_busy(self, app: Flask) -> None:
        assert not StreamSlots(0).try_take(("u",))

    def test_stream_cut_by_a_stop_does_not_look_complete(self, app: Flask) -> None:
        notifier = LocalNotifier()

        def chunks() -> Generator[bytes, None, None]:
            yield b"half"
            notifier.close()

        response = self.open(app, StreamSlots(1), chunks(), notifier)
        with pytest.raises(ConnectionResetError):
            list(response.response)
        response.close()

    def test_stream_that_ends_by_itself_is_complete(self, app: Flask) -> None:
        response = self.open(app, StreamSlots(1), pieces(b"a", b"", b"b"))
        assert b"".join(response.response) == b"ab"  # type: ignore[arg-type]  # it is made of bytes
        response.close()

    def test_disconnected_client_is_detected_during_a_long_answer(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "_CHECK_EVERY_S", 0)
        with app.test_request_context(environ_overrides={"reactorcide.client_has_closed": lambda: True}):
            response = stream(StreamSlots(1), ("u",), LocalNotifier(), pieces(b"x", b"y"), check=lambda: None)
            # The error keeps a part of an answer from looking complete.
            with pytest.raises(ConnectionResetError):
                list(response.response)
            response.close()


class TestJSON:
    """Which bodies are accepted as JSON."""

    @staticmethod
    def send(app: Flask, body: bytes) -> tuple[int, dict[str, Any]]:
        @app.post("/")
        def take() -> dict[str, Any]:
            return dict(request.get_json())

        response = app.test_client().post("/", data=body, content_type="application/json")
        return response.status_code, response.json or {}

    @pytest.mark.parametrize("body", [b'{"a": 1, "b": 2, "a": 1}', b'{"b": {"a": 1, "a": 2}}'])
    def test_duplicate_key_is_refused_by_name(self, app: Flask, body: bytes) -> None:
        status, error = self.send(app, body)
        assert (status, error["details"]) == (
            400,
            [{"field": "a", "message": "'a' occurs more than once"}],
        )

    def test_duplicate_key_check_has_linear_cost(self, app: Flask) -> None:
        many = b",".join(b'"%d": 0' % number for number in range(170_000))
        start_s = monotonic()
        status, error = self.send(app, b"{" + many + b', "169999": 1}')
        assert (status, error["details"][0]["field"]) == (400, "169999")
        # It was minutes: each key was looked for among all of them.
        assert monotonic() - start_s < 5

    @pytest.mark.parametrize(
        "body",
        [
            rb'{"a": "\ud800"}',
            rb'{"\uDFFF": 1}',
            rb'{"a": ["\ude00\ud83d"]}',
            b'{"a": "\xed\xa0\x80"}',
            '{"a": 1}'.encode("utf-16"),
            b'\xef\xbb\xbf{"a": 1}',
            b'{"a": NaN}',
            b'{"a": -Infinity}',
            b'{"a": ' + b"9" * 5000 + b"}",
            b'{"a": ' * 100_000,
            b"",
        ],
    )
    def test_malformed_json_is_refused(self, app: Flask, body: bytes) -> None:
        status, error = self.send(app, body)
        assert (status, error["error"]) == (400, "invalid_input")

    @pytest.mark.parametrize(
        ("body", "field", "code_point"),
        [
            (rb'{"b": 1, "job_command": "a\udc80b"}', "job_command", "U+DC80"),
            (rb'{"env": {"A": ["\ude00\ud83d"]}}', "env", "U+DE00"),
            (rb'{"\udFFF": 1}', "?", "U+DFFF"),
        ],
    )
    def test_lone_surrogate_is_refused_by_name(
        self, app: Flask, body: bytes, field: str, code_point: str
    ) -> None:
        status, error = self.send(app, body)
        message = f"{field!r} has half a character, the lone surrogate {code_point}"
        assert (status, error["details"]) == (400, [{"field": field, "message": message}])

    def test_surrogate_pair_is_accepted(self, app: Flask) -> None:
        assert self.send(app, rb'{"a": "\ud83d\ude00"}') == (200, {"a": "\U0001f600"})
