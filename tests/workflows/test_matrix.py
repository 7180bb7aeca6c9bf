"""The combinations of a matrix and their names."""

import pytest

from tests.workflows.support import define, job, problems


def names(matrix: str) -> list[str]:
    definition = define(job(f"matrix: {matrix}"))
    assert definition.errors == ()
    return [node.name for node in definition.graph.nodes]


def combinations(matrix: str) -> list[dict[str, str]]:
    return [dict(node.combination) for node in define(job(f"matrix: {matrix}")).graph.nodes]


def test_combinations_follow_the_order_of_the_file() -> None:
    assert names("{os: [b, a], python: [3.10, 3.9]}") == [
        "j (b, 3.10)",
        "j (b, 3.9)",
        "j (a, 3.10)",
        "j (a, 3.9)",
    ]


def test_exclude_removes_matching_combinations() -> None:
    assert names("{os: [a, b], n: [1, 2], exclude: [{os: a, n: 1}, {n: 2}]}") == ["j (b, 1)"]


def test_include_adds_values_to_a_combination_without_changing_its_name() -> None:
    matrix = "{n: [1, 2], include: [{n: 2, nightly: true}, {color: red}]}"

    assert names(matrix) == ["j (1)", "j (2)"]
    assert combinations(matrix) == [{"n": "1", "color": "red"}, {"n": "2", "nightly": "true", "color": "red"}]


def test_include_with_other_values_is_a_separate_combination() -> None:
    matrix = "{n: [1], include: [{n: 3, os: x}]}"

    assert names(matrix) == ["j (1)", "j (3, x)"]
    assert combinations(matrix)[1] == {"n": "3", "os": "x"}


def test_include_alone_lists_the_combinations() -> None:
    assert names("{include: [{a: 1, b: 2}, {a: 3}]}") == ["j (1, 2)", "j (3)"]


def test_a_combination_without_a_value_that_the_job_asks_for_is_an_error() -> None:
    text = job('image: "a:${matrix.tag}"\nmatrix: {include: [{tag: 1}, {tga: 2}]}')

    assert problems(text) == ["6:12: '${matrix.tag}': there is no such name in matrix; did you mean tga?"]


def test_numbers_and_booleans_can_come_from_the_matrix() -> None:
    text = job(
        "matrix: {n: [1, 2], include: [{n: 1, may_fail: false}, {n: 2, may_fail: true}]}\n"
        'allow_failure: ${matrix.may_fail}\nretries: "${matrix.n}"\ntimeout: ${matrix.n}m'
    )
    definition = define(text)

    assert definition.errors == ()
    jobs = [node.job for node in definition.graph.nodes]
    assert [(one.allow_failure, one.retries, one.timeout_s) for one in jobs] == [
        (False, 1, 60),
        (True, 2, 120),
    ]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ("[1]", "6:13: matrix takes a mapping, with a list for each axis"),
        ("{}", "6:13: matrix has no combination; give it an axis with values, or include"),
        ("{a: 1}", "6:17: the axis a takes a list of values"),
        ("{a: [[1]]}", "6:18: a takes a single value, not a list"),
        ("{a b: [1]}", "6:14: matrix: 'a b' is not an axis name: letters, digits, '_' and '-'"),
        ('{a: ["1\\n2"]}', "6:18: a: '1\\n2' is not on one line, without control characters"),
        ("{a: [1], include: {a: 2}}", "6:31: include takes a list of at most 256 mappings"),
        ("{a: [1], include: [x]}", "6:32: include takes mappings, with a value by axis"),
        ("{a: [1], max_parallel: 0}", "6:36: max_parallel: '0' is not a whole number from 1 to 256"),
        (
            '{a: ["1", "1, 2"], b: ["2, 3", "3"]}',
            "6:13: matrix: two combinations have the same values in the same order",
        ),
    ],
)
def test_matrix_errors_are_reported(matrix: str, expected: str) -> None:
    assert problems(job(f"matrix: {matrix}")) == [expected]
