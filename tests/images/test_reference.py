"""References, as docker normalizes them."""

import pytest

from wherry_images.errors import InvalidReference
from wherry_images.reference import familiar, parse_reference

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("me/app", "docker.io/me/app:latest"),
        ("a/b/c", "docker.io/a/b/c:latest"),
        ("ghcr.io/me/app", "ghcr.io/me/app:latest"),
        ("ghcr.io/app:v1", "ghcr.io/app:v1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("Upper/app", "Upper/app:latest"),
        ("UPPER.example/app", "UPPER.example/app:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
        ("a__b/c-d.e---f:X_y.z-1", "docker.io/a__b/c-d.e---f:X_y.z-1"),
        ("app:" + "t" * 128, "docker.io/library/app:" + "t" * 128),
        ("xn--n3h.example/app", "xn--n3h.example/app:latest"),
        ("a" * 63, "docker.io/library/" + "a" * 63 + ":latest"),
    ],
)
def test_names_are_normalized(text: str, expected: str) -> None:
    """Registry, repository, tag and digest in full."""
    assert str(parse_reference(text)) == expected
    assert str(parse_reference(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "@",
        "/",
        "nginx:",
        ":tag",
        "nginx@",
        "nginx@sha256:short",
        f"nginx@{DIGEST.upper()}",
        f"nginx@sha1:{'0' * 40}",
        "Nginx",
        "docker.io/Nginx",
        "a/B",
        "a//b",
        "a/",
        "/a",
        "a..b",
        "a___b",
        "a-",
        "-a",
        "a/-b",
        "a:b:c",
        "a:" + "t" * 129,
        "a:-x",
        "a:.x",
        "a b",
        "a\n",
        "ä",
        "http://a/b",
        "a@b",
        "f" * 64,
        "docker.io/" + "a" * 256,
        "-bad.example/app",
        "host:port/app",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """With the text and the reason."""
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    assert caught.value.reference == text
    assert caught.value.why


def test_upper_case_is_refused_with_a_hint() -> None:
    """The most usual mistake."""
    with pytest.raises(InvalidReference, match="must be lower case: 'library/nginx'"):
        parse_reference("docker.io/library/Nginx")


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("docker.io/library/nginx:latest", "nginx:latest"),
        ("docker.io/me/app:v1", "me/app:v1"),
        ("ghcr.io/me/app:v1", "ghcr.io/me/app:v1"),
        ("docker.io/has.dot/app:v1", "docker.io/has.dot/app:v1"),
    ],
)
def test_familiar_names(full: str, short: str) -> None:
    """As docker shows them."""
    assert familiar(full) == short
    assert parse_reference(full).familiar == short


def test_parts_of_a_reference() -> None:
    """What a registry is asked for, and other names in the same repository."""
    parsed = parse_reference(f"ghcr.io/a/b:c@{DIGEST}")
    assert (parsed.registry, parsed.repository, parsed.tag, parsed.digest) == ("ghcr.io", "a/b", "c", DIGEST)
    assert parsed.target == DIGEST
    assert str(parsed.tagged("d")) == "ghcr.io/a/b:d"
    assert str(parse_reference("a", default_tag="")) == "docker.io/library/a"
