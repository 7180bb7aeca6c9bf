"""Reading untrusted tars."""

import gzip
import random
import tarfile
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactorcide.lib.tar import DamagedTar, Tree, gunzip, read_tar
from tests.support.tars import chunked, header, member, tar

SAMPLE = (
    member("ä" * 200 + "/long", b"x" * 1000, mode=0o4755, mtime=1_700_000_000),
    member("dir", kind=tarfile.DIRTYPE),
    member("dir/link", kind=tarfile.SYMTYPE, target="y" * 300),
    member("dir/hard", kind=tarfile.LNKTYPE, target="dir/file"),
    member("pipe", kind=tarfile.FIFOTYPE),
    member("empty"),
)
END = bytes(1024)


def read(chunks: Iterable[bytes]) -> list[tuple[str, str, int, int, str, bytes]]:
    return [
        (item.path, item.kind, item.mode, item.modified_s, item.target, b"".join(item.chunks))
        for item in read_tar(iter(chunks))
    ]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("chunk_bytes", [1, 511, 10**6])
def test_members_are_read_in_any_format_and_chunking(format: int, chunk_bytes: int) -> None:
    assert read(chunked(tar(*SAMPLE, format=format), chunk_bytes)) == [
        ("ä" * 200 + "/long", "file", 0o4755, 1_700_000_000, "", b"x" * 1000),
        ("dir", "directory", 0o644, 0, "", b""),
        ("dir/link", "symlink", 0o644, 0, "y" * 300, b""),
        ("dir/hard", "hardlink", 0o644, 0, "dir/file", b""),
        ("pipe", "other", 0o644, 0, "", b""),
        ("empty", "file", 0o644, 0, "", b""),
    ]


def test_unread_content_is_skipped() -> None:
    data = tar(member("a", b"x" * 700_000), member("b", b"y"))
    paths = []
    for item in read_tar(iter([data])):
        paths.append(item.path)
        next(iter(item.chunks))
    assert paths == ["a", "b"]


def test_non_utf_8_name_is_decoded_with_surrogates() -> None:
    assert [item.path for item in read_tar(iter([tar(member("a\udcff"), format=tarfile.GNU_FORMAT)]))] == [
        "a\udcff"
    ]


def pax(records: bytes) -> bytes:
    padded = records + bytes(-len(records) % 512)
    return header("x", kind=tarfile.XHDTYPE, size=len(records)) + padded


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no tar" * 1000,
        tar(member("a", b"x" * 1000))[:800],
        tar(member("a", b"x" * 1000))[:1536],
        tar(member("a"))[:100],
        tar(member("a"), member("b"))[:512] + b"\1" * 1024,
        header("a", size=2**60) + b"x" * 1000,
        header("a", size=-1) + END,
        header("a", kind=tarfile.DIRTYPE, size=-512) + END,
        header("a", kind=tarfile.GNUTYPE_LONGNAME, size=2**40) + b"x" * 1000,
        header("a", kind=b"Z", size=2**60) + END,
        header("a", kind=tarfile.GNUTYPE_SPARSE, size=10) + END,
        header("a", kind=tarfile.GNUTYPE_LONGNAME, size=10) * 2000 + END,
        (header("a", kind=tarfile.GNUTYPE_LONGNAME, size=10) + b"name" + bytes(508)) * 2000 + END,
        pax(b"99 path=x\n") + header("a") + END,
        pax(b"0 path=x\n") + header("a") + END,
        pax(b"no record") + header("a") + END,
        pax(b"11 size=-1\n") + header("a") + END,
        pax(b"13 size=1e99\n") + header("a") + END,
        pax(b"14 mtime=1e999\n") + header("a") + END,
        pax(b"13 mtime=nan\n") + header("a") + END,
        pax(b"22 GNU.sparse.major=1\n") + header("a") + END,
        pax(b"27 size=99999999999999999999\n"[:27]) + header("a") + END,
        pax(b"9 path=x\n") + END,
        pax(b"9 path=x\n"),
    ],
)
def test_a_damaged_tar_is_an_error(data: bytes) -> None:
    with pytest.raises(DamagedTar):
        read([data])


def test_a_hostile_extended_header_takes_little_time() -> None:
    # The standard library looks for "=" from each of these numbers to the end.
    with pytest.raises(DamagedTar):
        read([pax(b"2 " * 500_000 + b"=") + header("a") + END])


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), chunk_bytes=st.integers(1, 3000), flips=st.integers(1, 40))
def test_flipped_bits_are_read_or_refused(seed: int, chunk_bytes: int, flips: int) -> None:
    source = random.Random(seed)  # noqa: S311  # a test's
    data = bytearray(tar(*SAMPLE, format=source.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])))
    for _ in range(flips):
        data[source.randrange(len(data))] = source.randrange(256)
    if source.random() < 0.5:
        # A checksum that is right again lets what was flipped through.
        for start in range(0, len(data) - 511, 512):
            block = data[start : start + 512]
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            data[start + 148 : start + 156] = b"%06o\0 " % total
    try:
        read(chunked(bytes(data), chunk_bytes))
    except DamagedTar:
        return


@settings(max_examples=100)
@given(
    # Neither begins nor ends with zeros, which end an archive and may follow it.
    noise=st.binary(min_size=1100, max_size=2000).map(lambda data: b"\x01" + data + b"\x01"),
    prefix=st.sampled_from([b"", header("a", size=700), gzip.compress(b"")]),
)
def test_random_bytes_are_refused(noise: bytes, prefix: bytes) -> None:
    with pytest.raises(DamagedTar):
        read([prefix + noise])
    with pytest.raises(DamagedTar):
        list(gunzip([prefix + noise]))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_extended_headers_of_a_member_are_limited_in_total(kind: bytes) -> None:
    comment = b"1015 comment=" + b"x" * 1001 + b"\n"
    extra = header("x", kind=kind, size=1015) + comment + bytes(9)
    read([extra * 10 + header("a") + extra * 10 + header("b") + END])
    with pytest.raises(DamagedTar, match="more than 64 KiB"):
        read([extra * 100 + header("a") + END])


def test_memory_is_independent_of_file_size_and_count() -> None:
    block = bytes(1 << 20)

    def large() -> Iterator[bytes]:
        yield header("large", size=64 << 20)
        for _ in range(64):
            yield block
        for number in range(4000):
            yield header(f"small-{number}")
        yield END

    tracemalloc.start()
    try:
        count = 0
        for item in read_tar(large()):
            count += 1
            assert max((len(chunk) for chunk in item.chunks), default=0) <= 1 << 18
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 4001
    assert peak_bytes < 4 << 20


# --- gzip ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**6])
def test_concatenated_gzip_members_are_unpacked(chunk_bytes: int) -> None:
    data = random.Random(1).randbytes(50_000) + bytes(1_000_000)  # noqa: S311  # a test's
    packed = gzip.compress(data) + gzip.compress(b"") + gzip.compress(b"more")
    pieces = list(gunzip(chunked(packed, chunk_bytes)))
    assert b"".join(pieces) == data + b"more"
    assert max(map(len, pieces)) <= 1 << 18


@pytest.mark.parametrize(
    "data", [b"", b"no gzip", gzip.compress(b"x" * 1000, mtime=0)[:-1], gzip.compress(b"x", mtime=0)[:5]]
)
def test_malformed_or_truncated_gzip_is_an_error(data: bytes) -> None:
    with pytest.raises(DamagedTar):
        list(gunzip([data]))


def test_damaged_gzip_content_is_detected() -> None:
    packed = bytearray(gzip.compress(b"some text" * 1000))
    packed[-6] ^= 1
    with pytest.raises(DamagedTar):
        list(gunzip([bytes(packed)]))


# --- paths --------------------------------------------------------------------------------------


def test_duplicate_paths_and_paths_below_files_are_refused() -> None:
    tree = Tree()
    assert tree.problem("a/b", "file") is None
    assert tree.problem("a", "directory") is None
    assert tree.problem("a", "directory") is None
    assert tree.problem("l", "symlink") is None
    for path, kind in (("a/b", "file"), ("a", "file"), ("a", "symlink"), ("l", "directory")):
        assert tree.problem(path, kind) == "its path is there twice"  # type: ignore[arg-type]  # kinds, all
    for path in ("l/x", "a/b/c", "a/b/c/d"):
        assert tree.problem(path, "file") == "a part of its path is a file or a link"
    for path in ("", "..", "a/..", "a//c", "/a", "a/", "."):
        assert tree.problem(path, "file") == "its path leads out"
