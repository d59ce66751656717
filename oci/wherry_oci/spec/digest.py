"""Digests and the names made of them (image-spec descriptor.md "Digests"; config.md "DiffID", "ChainID")."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NewType

from wherry_oci.errors import InvalidArgument

if TYPE_CHECKING:
    from hashlib import _Hash

Digest = NewType("Digest", str)
"""A blob's digest as it is stored: `sha256:` and 64 hexadecimal digits."""

DiffID = NewType("DiffID", str)
"""The digest of a layer's uncompressed tar."""

ChainID = NewType("ChainID", str)
"""The name of a stack of applied layers."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse_digest(text: str) -> Digest:
    """
    *text* as a digest of an algorithm that can be checked here.

    A digest becomes part of paths and addresses: nothing else than this may pass. Raises InvalidArgument.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidArgument(f"{text[:200]!r} is no digest: sha256: or sha512: and lower-case hexadecimal digits")
    return Digest(text)


def digest_of(content: bytes) -> Digest:
    """The sha256 digest of *content*."""
    from hashlib import sha256

    return Digest("sha256:" + sha256(content).hexdigest())


def hasher(digest: str) -> "_Hash":
    """A hash object of *digest*'s algorithm, with nothing fed to it."""
    import hashlib

    return hashlib.new(digest.partition(":")[0])


def chain_ids(diff_ids: Sequence[DiffID]) -> tuple[ChainID, ...]:
    """The chain ID of each stack that *diff_ids*, base layer first, pass through when applied in order."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(ChainID(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id))
    return tuple(chain)


def chain_id(diff_ids: Sequence[DiffID]) -> ChainID:
    """
    Name the rootfs that *diff_ids*, base layer first, give when applied in order.

    Raises InvalidArgument if there is none.
    """
    if not diff_ids:
        raise InvalidArgument("a stack of no layers has no chain id")
    return chain_ids(diff_ids)[-1]
