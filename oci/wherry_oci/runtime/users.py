"""Who a container's process is: `user[:group]` looked up in the image's own passwd and group files, as Docker does."""

from wherry_oci.runtime.failure import RuntimeFailure

_LARGEST_ID = (1 << 31) - 1
SIZE_LIMIT = 16 << 20  # of either file; an image's may be hostile


class Identity:
    """Numbers for the kernel, and the home directory for HOME."""

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def _records(content: bytes, fields: int) -> list[list[str]]:
    """The lines with at least *fields* colon-separated fields."""
    rows = (line.split(":") for line in content.decode("utf-8", "surrogateescape").splitlines())
    return [row for row in rows if len(row) >= fields and not row[0].startswith("#")]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def resolve(user: str, added_groups: list[str], passwd: bytes, group: bytes) -> Identity:
    """
    The identity that *user* (name, number, `user:group`, or empty for root) names.

    A number is always a number, even where a line of passwd has it as its name (CVE-2016-3697); one that passwd does
    not know is taken as it is. Raises RuntimeFailure of kind "no_such_user".
    """
    wanted_user, _, wanted_group = user.partition(":")
    groups_file = _records(group, 3)
    name, uid, gid, home = _find_user(wanted_user or "0", user, _records(passwd, 6))
    groups = []
    if wanted_group:
        gid = _find_group(wanted_group, user, groups_file)
    else:
        groups = [
            number
            for row in groups_file
            if len(row) > 3
            and name is not None
            and name in row[3].split(",")
            and (number := _number(row[2])) is not None
        ]
    groups += [_find_group(added, added, groups_file) for added in added_groups]
    # The first group too, which a setgid program would put aside: what that group may not do must stay so
    # (CVE-2022-36109).
    return Identity(uid, gid, list(dict.fromkeys([gid, *groups])), home)


def _find_user(wanted: str, given: str, rows: list[list[str]]) -> tuple[str | None, int, int, str]:
    number = _number(wanted)
    for row in rows:
        uid, gid = _number(row[2]), _number(row[3])
        if uid is not None and gid is not None and (uid == number if number is not None else row[0] == wanted):
            _check(uid, given)
            return row[0], uid, gid, row[5] or "/"
    if number is None:
        raise RuntimeFailure(
            "no_such_user", "resolve user", f"no user {wanted!r} in the image's /etc/passwd (asked for {given!r})"
        )
    _check(number, given)
    return None, number, 0, "/"


def _find_group(wanted: str, given: str, rows: list[list[str]]) -> int:
    number = _number(wanted)
    if number is None:
        found = next((row[2] for row in rows if row[0] == wanted), None)
        number = _number(found) if found is not None else None
        if number is None:
            raise RuntimeFailure(
                "no_such_user", "resolve user", f"no group {wanted!r} in the image's /etc/group (asked for {given!r})"
            )
    _check(number, given)
    return number


def _check(number: int, given: str) -> None:
    if number > _LARGEST_ID:
        raise RuntimeFailure("no_such_user", "resolve user", f"{given!r}: ids go from 0 to {_LARGEST_ID}")
