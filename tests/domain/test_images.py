"""Image references, and the globs that they are compared with."""

import pytest

from reactorcide.domain.images import full_pattern, full_reference, is_allowed

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("acme/build", "docker.io/acme/build:latest"),
        ("ghcr.io/acme/build:1", "ghcr.io/acme/build:1"),
        ("localhost/build", "localhost/build:latest"),
        ("registry:5000/build", "registry:5000/build:latest"),
        ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"alpine:3.20@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
    ],
)
def test_missing_parts_of_a_reference_are_completed_like_docker(reference: str, full: str) -> None:
    assert full_reference(reference) == full


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("alpine", ["alpine", "docker.io/library/alpine:latest"], ["alpine:3", "evil/alpine", "x.io/alpine"]),
        ("alpine:*", ["alpine", "alpine:3.20"], ["alpine-evil:1", f"alpine@{DIGEST}", "ghcr.io/alpine:3"]),
        ("alpine@*", [f"alpine@{DIGEST}", f"alpine:1@{DIGEST}"], ["alpine"]),
        # A tag beside a digest is only a word.
        ("alpine:3*", ["alpine:3.20"], [f"alpine:3@{DIGEST}"]),
        (
            "ghcr.io/acme/*",
            ["ghcr.io/acme/a", f"ghcr.io/acme/b/c@{DIGEST}"],
            ["ghcr.io/acme-evil/a", "acme/a"],
        ),
        ("acme/*", ["acme/a:1"], ["ghcr.io/acme/a", "evil.io/acme/a"]),
        ("registry:5000/*", ["registry:5000/a"], ["registry:5001/a", "registry/a"]),
    ],
)
def test_pattern_allows_matching_images(pattern: str, allowed: list[str], refused: list[str]) -> None:
    assert [image for image in allowed if not is_allowed(image, [pattern])] == []
    assert [image for image in refused if is_allowed(image, [pattern])] == []
    assert is_allowed(allowed[0], ["unrelated", pattern])


def test_without_patterns_everything_is_allowed() -> None:
    assert is_allowed("anything/at:all", [])


@pytest.mark.parametrize("pattern", ["ghcr.*/acme/*", "*.example.com/a:1", "regist?y:5000/a"])
def test_pattern_without_a_registry_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="has no fixed registry"):
        full_pattern(pattern)
