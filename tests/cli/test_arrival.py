"""When a request is all there."""

import pytest

from reactorcide.cli.arrival import Arrival, TooLong
from reactorcide.settings import MOST_BODY_BYTES

HEAD = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nabcde",
        HEAD + b"content-LENGTH:0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\nTrailer: x\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    ],
)
def test_a_request_is_whole_with_its_last_byte_and_not_before(request_: bytes) -> None:
    arrival = Arrival(b"\r\n", deadline=0)
    for byte in request_:
        assert not arrival.is_whole()
        arrival.add(bytes([byte]))
    assert arrival.is_whole()
    assert arrival.data == request_
    assert Arrival(request_ + b"GET / HT", deadline=0).is_whole()


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % (MOST_BODY_BYTES + 1),
        HEAD + b"Content-Length: five\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
    ],
)
def test_what_will_be_refused_is_not_waited_for(request_: bytes) -> None:
    assert Arrival(request_, deadline=0).is_whole()


def test_what_never_ends_is_too_long() -> None:
    for endless, status in (
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 800_000, 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (MOST_BODY_BYTES + 1), 413),
    ):
        with pytest.raises(TooLong) as caught:
            Arrival(endless, deadline=0).is_whole()
        assert caught.value.status == status


def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    arrival = Arrival(HEAD + b"Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n", deadline=0)
    assert not arrival.is_whole()
    assert arrival.wants_continue


def test_an_upload_is_whole_with_its_head() -> None:
    for body in (b"Content-Length: 9999999\r\n", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"):
        arrival = Arrival(b"POST /api/v1/sources HTTP/1.1\r\n" + body, deadline=0)
        assert not arrival.is_whole()
        arrival.add(b"\r\n")
        assert arrival.is_whole()
