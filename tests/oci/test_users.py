"""Who `user[:group]` is, by the image's own files."""

import pytest

from wherry_oci.runtime.failure import RuntimeFailure
from wherry_oci.runtime.users import resolve

pytestmark = pytest.mark.unit

_PASSWD = b"""root:x:0:0:root:/root:/bin/sh
www:x:33:34:www:/var/www:/bin/sh
1000:x:0:0:a number for a name:/root:/bin/sh
broken:x:seven
homeless:x:50:50:::
"""
_GROUP = b"""root:x:0:
crew:x:70:www,other
adm:x:4:www
www:x:34:
empty
"""


def _identity(user: str, *groups: str) -> tuple[int, int, list[int], str]:
    found = resolve(user, list(groups), _PASSWD, _GROUP)
    return found.uid, found.gid, found.groups, found.home


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, [0], "/root")),
        ("root", (0, 0, [0], "/root")),
        ("www", (33, 34, [34, 70, 4], "/var/www")),
        ("33", (33, 34, [34, 70, 4], "/var/www")),
        ("www:crew", (33, 70, [70], "/var/www")),
        ("www:99", (33, 99, [99], "/var/www")),
        ("4711", (4711, 0, [0], "/")),
        ("4711:12", (4711, 12, [12], "/")),
        (":crew", (0, 70, [70], "/root")),
        ("homeless", (50, 50, [50], "/")),
    ],
)
def test_users_are_found_as_docker_finds_them(user: str, expected: tuple[int, int, list[int], str]) -> None:
    """By name or number, with the user's groups unless one is given."""
    assert _identity(user) == expected


def test_a_number_is_never_a_name() -> None:
    """CVE-2016-3697: a line of passwd that is named 1000 and is root's does not make user 1000 root."""
    assert _identity("1000")[:2] == (1000, 0)


def test_added_groups_come_to_the_users_own() -> None:
    """By name or number, each once."""
    assert _identity("www", "adm", "1234", "crew")[2] == [34, 70, 4, 1234]


@pytest.mark.parametrize("user", ["who", "www:who", "2147483648", "0:2147483648", "broken", "-1"])
def test_who_is_not_there_is_an_error_that_names_him(user: str) -> None:
    """The kind tells the caller, the text the reader."""
    with pytest.raises(RuntimeFailure, match=user.rpartition(":")[2]) as caught:
        _identity(user)
    assert caught.value.kind == "no_such_user"


def test_without_the_files_numbers_still_work() -> None:
    """An image from scratch has neither."""
    found = resolve("1:2", ["3"], b"", b"")
    assert (found.uid, found.gid, found.groups, found.home) == (1, 2, [2, 3], "/")
