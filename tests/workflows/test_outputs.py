"""The file with a job's outputs: accepted and refused content."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.domain.outputs import MAX_OUTPUT_BYTES, Outputs
from reactorcide.workflows.outputs import NotOutputs, parse


def has_secret(text: str) -> bool:
    return "s3cret" in text


def read(text: str | bytes) -> Outputs:
    return parse(text.encode() if isinstance(text, str) else text, has_secret)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("version=1.2\n", {"version": "1.2"}),
        ("a=b=c\r\n\n  \nlast= x ", {"a": "b=c", "last": " x "}),
        ("a=1\na=2\n", {"a": "2"}),
        ("a=\n", {"a": ""}),
        ("a=${needs.b.c}: [x]\n", {"a": "${needs.b.c}: [x]"}),
        ("token=the s3cret\n", {"token": None}),
        (' {"a": "x\\ny", "b": 3.10, "c": 10000000000000000000000, "d": true}', {}),
        ("{}", {}),
    ],
)
def test_output_files_are_parsed(text: str, values: dict[str, str | None]) -> None:
    if text.startswith(" {"):
        values = {"a": "x\ny", "b": "3.10", "c": "10000000000000000000000", "d": "true"}
    assert read(text) == Outputs(values)


def test_vars_and_outputs_of_the_first_reactorcide() -> None:
    outputs = read('{"vars": {"tag": "v1", "n": 1}, "outputs": {"digest": "x"}}')
    assert outputs == Outputs({"digest": "x"}, {"tag": "v1", "n": "1"})
    assert outputs.all == {"tag": "v1", "n": "1", "digest": "x"}
    assert read('{"vars": {"tag": "v1"}}') == Outputs({}, {"tag": "v1"})
    # Not of that kind.
    assert read('{"vars": "x"}') == Outputs({"vars": "x"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a=\xff\n", "is not UTF-8"),
        ("a=1\nno\n", "has in line 2 'no', which is not KEY=VALUE"),
        ("a s3cret\n", "has in line 1 a secret, which is not KEY=VALUE"),
        ("a b=1\n", "has as a key 'a b'; a key is of letters, digits, '_' and '-'"),
        ("=1\n", "has as a key ''; a key"),
        ("s3cret=1\n", "has as a key a secret; a key"),
        ("a=x\0y\n", "has for a a value with NUL"),
        ('{"a": "\\ud800"}', "has for a a value with NUL, or half of a surrogate pair"),
        ('{"a": [1]}', "has for a neither a text nor a number nor a boolean; write it as a text"),
        ('{"a": null}', "has for a neither a text"),
        ('{"a": NaN}', "is not a JSON object: NaN is not a number"),
        ('{"a": 1', "is not a JSON object: Expecting ',' delimiter"),
        ('{"a":' + "[" * 60_000, "is nested too deep"),
    ],
)
def test_malformed_output_files_are_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(NotOutputs) as caught:
        read(text)
    assert str(caught.value).startswith(problem)


@given(
    st.binary(max_size=200)
    | st.text(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["vars", "outputs", "a"]) | st.text(), inner),
    ).map(json.dumps)
)
def test_any_file_is_parsed_or_refused(data: bytes | str) -> None:
    raw = data if isinstance(data, bytes) else data.encode(errors="surrogatepass")
    try:
        outputs = parse(raw, has_secret)
    except NotOutputs:
        return
    for value in outputs.all.values():
        assert value is None or ("\0" not in value and value.encode().decode() == value)


def test_file_at_the_size_limit_is_read_quickly() -> None:
    lines = b"".join(b"k%d=\n" % number for number in range(9000))[:MAX_OUTPUT_BYTES]
    assert len(read(lines.rpartition(b"\n")[0]).values) > 5000
