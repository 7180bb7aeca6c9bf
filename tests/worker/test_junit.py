"""JUnit XML in the dialects of the common test frameworks, and XML that is none or hostile."""

import contextlib
from collections.abc import Callable
from time import monotonic, thread_time
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactorcide.domain.reports import FailedTest
from reactorcide.worker.attempt.junit import (
    MAX_CASES,
    MAX_CHARS,
    MAX_DEPTH,
    JUnitResults,
    NotJUnit,
    read_junit,
)

PYTEST = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="2" tests="5"
    time="0.081" timestamp="2026-11-26T20:31:02.144021+00:00" hostname="ci">
<testcase classname="tests.test_price" name="test_sum" time="0.001" />
<testcase classname="tests.test_price" name="test_discount[10 &lt; 20]" time="0.002"><failure
 message="AssertionError: assert 90 == 91&#10;  +90&#10;  -91">def test_discount():
&gt;       assert 90 == 91
E       assert 90 == 91

tests/test_price.py:12: AssertionError</failure><system-out>a line that was printed</system-out></testcase>
<testcase classname="tests.test_price" name="test_later" time="0.000"><skipped type="pytest.skip"
 message="not yet">/src/tests/test_price.py:20: not yet</skipped></testcase>
<testcase classname="tests.test_price" name="test_known" time="0.000"><skipped type="pytest.xfail"
 message="" /></testcase>
<testcase classname="" name="tests.test_broken" time="0.000"><error message="collection failure"
>E   ModuleNotFoundError: No module named 'nowhere'</error></testcase>
</testsuite></testsuites>
"""

MAVEN = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:noNamespaceSchemaLocation="https://maven.apache.org/surefire/surefire-test-report.xsd"
  version="3.0.2" name="com.acme.PriceTest" time="1,204.5" tests="5" errors="1" skipped="1" failures="1">
  <properties><property name="java.version" value="21.0.4"/></properties>
  <testcase name="adds" classname="com.acme.PriceTest" time="0.011"/>
  <testcase name="rounds" classname="com.acme.PriceTest" time="0.012">
    <failure message="expected: &lt;91&gt; but was: &lt;90&gt;" type="org.opentest4j.AssertionFailedError"
    ><![CDATA[org.opentest4j.AssertionFailedError: expected: <91> but was: <90>
	at com.acme.PriceTest.rounds(PriceTest.java:31)
]]></failure>
    <rerunFailure message="expected: &lt;91&gt; but was: &lt;90&gt;" type="org.opentest4j.AssertionFailure">
      <stackTrace><![CDATA[org.opentest4j.AssertionFailedError]]></stackTrace>
    </rerunFailure>
    <system-out><![CDATA[<failure>not one</failure>]]></system-out>
  </testcase>
  <testcase name="connects" classname="com.acme.PriceTest" time="0.5">
    <flakyError message="refused" type="java.net.ConnectException"><stackTrace>it</stackTrace></flakyError>
  </testcase>
  <testcase name="reads" classname="com.acme.PriceTest" time="0.001">
    <error type="java.lang.NullPointerException"/>
  </testcase>
  <testcase name="writes" classname="com.acme.PriceTest" time="0"><skipped message="no disk"/></testcase>
</testsuite>
"""

GO = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="4" failures="1" errors="1" skipped="1">
	<testsuite name="example.com/acme/price" tests="3" failures="1" errors="0" id="0" skipped="1" time="1">
		<properties><property name="coverage.statements.pct" value="83.30"></property></properties>
		<testcase name="TestSum" classname="example.com/acme/price" time="0.000"></testcase>
		<testcase name="TestDiscount/ten_percent" classname="example.com/acme/price" time="0.000">
			<failure message="Failed"><![CDATA[    price_test.go:12: got 90, want 91]]></failure>
		</testcase>
		<testcase name="TestLater" classname="example.com/acme/price" time="0.000">
			<skipped message="Skipped"><![CDATA[    price_test.go:20: not yet]]></skipped>
		</testcase>
	</testsuite>
	<testsuite name="example.com/acme/broken" tests="1" failures="0" errors="1" id="1" time="0.000">
		<testcase name="[build failed]" classname="example.com/acme/broken" time="0.000">
			<error message="Build error"><![CDATA[broken.go:3:8: undefined: nothing]]></error>
		</testcase>
	</testsuite>
</testsuites>
"""

JEST = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="jest tests" tests="3" failures="1" errors="0" time="0.61">
  <testsuite name="price" errors="0" failures="1" skipped="1" time="0.21" tests="3">
    <testcase classname="price adds" name="price adds" time="0.002">
    </testcase>
    <testcase classname="price rounds" name="price rounds" time="0.003">
      <failure>Error: expect(received).toBe(expected) // Object.is equality

Expected: 91
Received: 90
    at Object.toBe (/src/price.test.js:12:21)</failure>
    </testcase>
    <testcase classname="price later" name="price later" time="0">
      <skipped/>
    </testcase>
  </testsuite>
</testsuites>
"""


def read(data: str | bytes, *, max_failures: int = 100, seconds: float = 60.0) -> JUnitResults:
    data = data.encode() if isinstance(data, str) else data
    return read_junit("a.xml", data, deadline=monotonic() + seconds, max_failures=max_failures)


def refusal(data: str | bytes, **options: float) -> str:
    with pytest.raises(NotJUnit) as refused:
        read(data, **options)  # type: ignore[arg-type]  # seconds only
    return str(refused.value)


def counts(results: JUnitResults) -> tuple[int, int, int]:
    return results.passed, results.failed, results.skipped


def test_pytest() -> None:
    results = read(PYTEST)
    assert counts(results) == (1, 2, 2)
    discount, broken = results.failures
    assert (discount.suite, discount.name) == ("tests.test_price", "test_discount[10 < 20]")
    assert discount.message.startswith("AssertionError: assert 90 == 91\n")
    assert discount.text.endswith("E       assert 90 == 91\n\ntests/test_price.py:12: AssertionError")
    assert broken == FailedTest(
        "a.xml",
        "pytest",
        "tests.test_broken",
        "collection failure",
        "E   ModuleNotFoundError: No module named 'nowhere'",
    )


def test_maven() -> None:
    results = read(MAVEN)
    assert counts(results) == (2, 2, 1)
    assert [(item.suite, item.name, item.message) for item in results.failures] == [
        ("com.acme.PriceTest", "rounds", "expected: <91> but was: <90>"),
        ("com.acme.PriceTest", "reads", "java.lang.NullPointerException"),
    ]
    assert results.failures[0].text.endswith("at com.acme.PriceTest.rounds(PriceTest.java:31)")


def test_go_junit_report() -> None:
    results = read(GO)
    assert counts(results) == (1, 2, 1)
    assert [(item.suite, item.name, item.message, item.text) for item in results.failures] == [
        (
            "example.com/acme/price",
            "TestDiscount/ten_percent",
            "Failed",
            "price_test.go:12: got 90, want 91",
        ),
        ("example.com/acme/broken", "[build failed]", "Build error", "broken.go:3:8: undefined: nothing"),
    ]


def test_jest_junit() -> None:
    results = read(JEST)
    assert counts(results) == (1, 1, 1)
    (failure,) = results.failures
    assert (failure.suite, failure.name) == ("price rounds", "price rounds")
    assert failure.message == "Error: expect(received).toBe(expected) // Object.is equality"
    assert failure.text.endswith("(/src/price.test.js:12:21)")


def test_nested_suites_and_the_failure_of_a_whole_suite() -> None:
    results = read(
        '<testsuites><testsuite name="outer"><testsuite name="inner"><testcase name="a"/></testsuite>'
        '<error message="no database">it was away</error><testcase name="b"><failure/></testcase></testsuite>'
        "</testsuites>"
    )
    assert counts(results) == (1, 2, 0)
    assert [(item.suite, item.name, item.message) for item in results.failures] == [
        ("outer", "", "no database"),
        ("outer", "b", ""),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_encodings(encoding: str) -> None:
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>'
        + '<testsuite name="é"><error message="ü"/></testsuite>'
    )
    (failure,) = read(text.encode(encoding)).failures
    assert (failure.suite, failure.message) == ("é", "ü")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("", "not well-formed XML: no element found"),
        ("passed", "not well-formed XML: syntax error, line 1, column 0"),
        ("<coverage line-rate='0.9'/>", "not JUnit XML: it begins with <coverage>"),
        (PYTEST[:400], "not well-formed XML"),
        ("<testsuite><testcase></testsuite>", "mismatched tag, line 1, column 23"),
        ("<?xml version='1.0' encoding='klingon'?><testsuite/>", "encoding"),
        ("<?xml version='1.0' encoding='zlib'?><testsuite/>", "encoding"),
        ("<!DOCTYPE testsuite><testsuite/>", "DOCTYPE"),
    ],
)
def test_non_junit_file_is_reported(data: str, problem: str) -> None:
    assert problem in refusal(data)


def test_entities_are_refused_before_they_grow() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "lol">{entities}]><testsuite name="&e9;"/>'
    began_at = thread_time()
    assert "DOCTYPE" in refusal(bomb)
    assert thread_time() - began_at < 0.1
    outside = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><testsuite name="&e;"/>'
    assert "DOCTYPE" in refusal(outside)
    assert "undefined entity" in refusal('<testsuite name="&e;"/>')


def test_bounds() -> None:
    deep = "<testsuite>" * MAX_DEPTH + "</testsuite>" * MAX_DEPTH
    assert counts(read(deep)) == (0, 0, 0)
    assert "nested" in refusal(f"<testsuite>{deep}</testsuite>")
    assert "nested" in refusal("<testsuite>" + "<x>" * MAX_DEPTH)
    cases = "<testcase/>" * MAX_CASES
    assert counts(read(f"<testsuite>{cases}</testsuite>")) == (MAX_CASES, 0, 0)
    assert f"more than {MAX_CASES} tests" in refusal(f"<testsuite>{cases}<testcase/></testsuite>")
    failed = "<testcase><failure/></testcase>" * 5
    results = read(f"<testsuite>{failed}</testsuite>", max_failures=2)
    assert (results.failed, len(results.failures)) == (5, 2)
    long = "x" * (MAX_CHARS + 1)
    (failure,) = read(
        f'<testsuite><testcase classname="{long}" name="{long}"><failure message="{long}">{long}'
        "</failure></testcase></testsuite>"
    ).failures
    texts = (failure.suite, failure.name, failure.message, failure.text)
    assert all(len(text) == MAX_CHARS for text in texts)
    assert "the time" in refusal("<testsuite/>", seconds=0)
    for inner in ('<x a="{}"/>', "<!--{}-->"):
        assert "a tag or a comment" in refusal("<testsuite>" + inner.format("x" * 400_000) + "</testsuite>")
    long_text = "<testsuite><system-out>" + "x" * 1_000_000 + "</system-out><testcase/></testsuite>"
    assert counts(read(long_text)) == (1, 0, 0)
    assert counts(read(long_text.replace("x", "<![CDATA[", 1).replace("</s", "]]></s"))) == (1, 0, 0)


HOSTILE: dict[str, Callable[[int], str]] = {
    "one long attribute": lambda n: '<testsuite name="' + "x" * n + '"/>',
    "one long text": lambda n: "<testsuite><error>" + "\n" * n + "</error></testsuite>",
    "one comment": lambda n: "<testsuite><!--" + "x" * n + "--></testsuite>",
    "one CDATA": lambda n: "<testsuite><error><![CDATA[" + "]" * n + "]]></error></testsuite>",
    "many attributes": lambda n: "<testsuite " + " ".join(f'a{k}=""' for k in range(n // 10)) + "/>",
    "many elements": lambda n: "<testsuite>" + "<a/>" * (n // 4) + "</testsuite>",
    "many failures": lambda n: "<testsuite>" + "<error/>" * min(n // 8, MAX_CASES) + "</testsuite>",
    "an unfinished tag": lambda n: "<testsuite " + "a" * n,
    "many references": lambda n: "<testsuite><error>" + "&#65;" * (n // 5) + "</error></testsuite>",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_take_linear_time(kind: str) -> None:
    def seconds(size: int) -> float:
        data = HOSTILE[kind](size).encode()
        best = 60.0
        for _ in range(3):
            began_at = thread_time()
            with contextlib.suppress(NotJUnit):
                read(data)
            best = min(best, thread_time() - began_at)
        return best

    small, large = seconds(1 << 17), seconds(1 << 20)
    # Eight times the bytes; 64 times the time would be quadratic.
    assert large < 24 * small + 0.05, (small, large)


PARTS = st.sampled_from(
    [
        *("<testsuites>", "</testsuites>", '<testsuite name="s">', "</testsuite>", '<testcase name="c">'),
        *("<testcase/>", "</testcase>", '<failure message="m">', "</failure>", "<error/>", "<skipped/>"),
        *("text", "&amp;", "&#0;", "&x;", "\0", "\ud800", "<x:y>", "<![CDATA[", "]]>", "<!--", "-->"),
        *("<?xml version='1.0'?>", "<!DOCTYPE x>"),
    ]
)


def joined(parts: list[str]) -> bytes:
    return "".join(parts).encode(errors="surrogatepass")


@given(st.binary(max_size=200) | st.lists(PARTS, max_size=30).map(joined))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(NotJUnit):
        results = read(data)
        assert len(results.failures) == results.failed
        for failure in results.failures:
            failure.text.encode()


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=10)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(["", "failure", "error", "skipped", "flakyFailure"]), NAMES))
)
def test_written_results_are_read_back(cases: list[tuple[str, str, str]]) -> None:
    written = "".join(
        f"<testcase name={quoteattr(name)}>"
        + (f"<{kind} message={quoteattr(text)}>{escape(text)}</{kind}>" if kind else "")
        + "</testcase>"
        for name, kind, text in cases
    )
    results = None
    with contextlib.suppress(NotJUnit):
        results = read(f"<testsuite>{written}</testsuite>")
    if results is None:
        # XML has no way to write these two.
        assert any(odd in name + text for name, _, text in cases for odd in "\ufffe\uffff")
        return
    failed = [(name, text) for name, kind, text in cases if kind in ("failure", "error")]
    assert [item.name for item in results.failures] == [name for name, _ in failed]
    assert results.failed == len(failed)
    assert results.skipped == sum(kind == "skipped" for _, kind, _ in cases)
    assert results.passed == sum(kind in ("", "flakyFailure") for _, kind, _ in cases)
