"""Secrets in a stream, however it is cut."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactorcide.logs import masking
from reactorcide.logs.masking import Masker, masked

KEY = "-----BEGIN KEY-----\nMIIEvQIBADAN\r\n{\n}\nBgkqhkiG9w0B\n-----END KEY-----\n"

# Two letters make patterns that overlap, begin one another and repeat themselves.
patterns = st.lists(
    st.text("ab", min_size=1, max_size=24) | st.text("abc", min_size=1, max_size=6), max_size=6
)


@st.composite
def texts(draw: st.DrawFn, secrets: Sequence[str]) -> bytes:
    """Text of the letters that secrets are made of, with whole secrets and beginnings of them in it."""
    parts = st.text("abc", max_size=6)
    if secrets:
        chosen = st.sampled_from(secrets)
        parts |= chosen | chosen.flatmap(lambda text: st.integers(0, len(text)).map(lambda size: text[:size]))
    return "".join(draw(st.lists(parts, max_size=12))).encode()


def reference(data: bytes, secrets: Sequence[str]) -> bytes:
    """Mask a whole text, slowly."""
    longest_first = sorted((secret.encode() for secret in secrets), key=len, reverse=True)
    result, position = b"", 0
    while position < len(data):
        match = next((secret for secret in longest_first if data.startswith(secret, position)), None)
        result += data[position : position + 1] if match is None else b"[REDACTED]"
        position += 1 if match is None else len(match)
    return result


def run(masker: Masker, chunks: Sequence[bytes]) -> list[tuple[int, bytes]]:
    return [piece for chunk in chunks for piece in masker.feed(chunk)] + masker.end()


def output(pieces: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(text for _, text in pieces)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(places), len(data)])]


@given(st.data())
def test_masking_is_independent_of_chunking(data: st.DataObject) -> None:
    secrets = data.draw(patterns)
    text = data.draw(texts(secrets))
    chunks = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    longest = max(map(len, secrets), default=0)
    masker, pieces, fed_bytes = Masker(secrets), [], 0
    for chunk in chunks:
        new = masker.feed(chunk)
        assert len(new) <= 1
        pieces += new
        fed_bytes += len(chunk)
        # Less than a secret is held back, and only what may become one.
        held = text[sum(size for size, _ in pieces) : fed_bytes]
        assert not held or any(len(held) < len(secret) <= longest for secret in secrets)
        assert not held or any(secret.encode().startswith(held) for secret in secrets)
    pieces += masker.end()
    assert output(pieces) == reference(text, secrets)
    assert sum(size for size, _ in pieces) == len(text)
    assert masker.end() == []


@given(st.data())
def test_new_masker_continues_at_every_boundary(data: st.DataObject) -> None:
    secrets = data.draw(patterns)
    text = data.draw(texts(secrets))
    pieces = run(Masker(secrets), cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8))))
    position = 0
    for number, (size, _) in enumerate(pieces, 1):
        position += size
        rest = output(run(Masker(secrets), [text[position:]]))
        assert output(pieces[:number]) + rest == reference(text, secrets)


@settings(deadline=None)
@given(st.data())
def test_many_shapes_of_secrets_are_masked(data: st.DataObject) -> None:
    """Enough of them for the other automaton, so long that their beginnings are looked for by their ends."""
    many = [f"{number:04}".translate(str.maketrans("0123", "abab")) * 5 for number in range(900)]
    secrets = many + data.draw(patterns)
    text = data.draw(texts(secrets))
    chunks = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    assert output(run(Masker(secrets), chunks)) == reference(text, secrets)


@given(st.binary(), st.lists(st.binary(max_size=40)))
def test_without_secrets_text_is_unchanged(first: bytes, more: list[bytes]) -> None:
    masker = Masker([""])
    for chunk in (first, *more):
        assert masker.feed(chunk) == ([(len(chunk), chunk)] if chunk else [])
    assert masker.end() == []


def test_longest_secret_wins_at_one_position() -> None:
    assert masked("token-17 token-1 token", ["token", "token-17", "token-1"]) == " ".join(["[REDACTED]"] * 3)


def test_masked_text_is_not_matched_again() -> None:
    assert masked("abcabcab", ["abca", "bcab"]) == "[REDACTED][REDACTED]"
    # What a secret leaves behind is not read again together with what stands in its place.
    assert masked("xRED", ["x", "[RED", "]RED"]) == "[REDACTED]RED"


def test_long_lines_of_a_multiline_secret_are_masked() -> None:
    assert masked(KEY, [KEY]) == "[REDACTED]"
    # What `$(cat key)` prints.
    assert masked(KEY.strip(), [KEY]) == "[REDACTED]"
    indented = "".join(f"  {line}\n" for line in KEY.replace("\r", "").splitlines())
    assert masked(indented, [KEY]) == ("  [REDACTED]\n  [REDACTED]\n  {\n  }\n  [REDACTED]\n  [REDACTED]\n")


def test_trailing_newline_of_a_secret_is_ignored() -> None:
    assert masked("word", ["word\n"]) == "[REDACTED]"
    assert masked("a{b", ["a\n{\nb\n"]) == "a{b"


def test_multibyte_characters_and_invalid_bytes_are_masked() -> None:
    secret = "größe→\U0001f511"
    data = b"\xff" + secret.encode() + b"\xc3"
    for place in range(len(data)):
        pieces = run(Masker([secret]), cut(data, [place]))
        assert output(pieces) == b"\xff[REDACTED]\xc3"
    assert masked("a\udcff\ud800", ["größe"]) == "a\udcff\ud800"


def test_line_without_a_partial_secret_is_not_held_back() -> None:
    masker = Masker(["hunter22", KEY])
    assert masker.feed(b"building hunters\n") == [(17, b"building hunters\n")]
    assert masker.feed(b"hunter2") == []
    assert masker.feed(b"\n") == [(8, b"hunter2\n")]


@pytest.mark.parametrize("secret", ["x" * 32_000, "x" * 16_000 + "y" + "x" * 15_999])
def test_long_secret_of_one_letter_is_masked_in_linear_time(secret: str) -> None:
    data = b"x" * 300_000 + secret.encode()
    pieces = run(Masker([secret]), cut(data, range(0, len(data), 30_000)))
    assert output(pieces) == reference(data, [secret])


def test_periodic_secrets_hold_back_more_text_instead_of_more_time() -> None:
    """Each of 32,000 beginnings of 31 secrets ends like this output: they are not all compared with it."""
    secrets = ["a" * 32_000 + f"{number:02}" for number in range(31)]
    masker = Masker(secrets)
    assert masker.feed(b"b" + b"a" * 9) == []
    assert masker.feed(b"!") == [(11, b"baaaaaaaaa!")]
    assert output(run(masker, [b"baaa", secrets[30].encode(), b"a"])) == b"baaa[REDACTED]a"


@given(st.data())
def test_held_back_text_is_masked_on_flush(data: st.DataObject) -> None:
    secrets = [*data.draw(patterns), "ab" * 12, "a" * 40]
    text = data.draw(texts(secrets))
    chunks = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "_MAX_COMPARISONS", data.draw(st.integers(0, 2)))
        pieces = run(Masker(secrets), chunks)
    assert output(pieces) == reference(text, secrets)
    position = 0
    for number, (size, _) in enumerate(pieces, 1):
        position += size
        assert output(pieces[:number]) + reference(text[position:], secrets) == reference(text, secrets)


def test_large_secrets_take_little_memory() -> None:
    secrets = [chr(97 + number) + "0123456789" * 3000 for number in range(20)]
    before_bytes = resident_bytes()
    masker = Masker(secrets)
    assert resident_bytes() - before_bytes < 50_000_000
    assert output(run(masker, [secrets[7].encode()])) == b"[REDACTED]"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
