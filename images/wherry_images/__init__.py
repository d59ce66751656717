"""
Images: registries, the content store, unpacking and snapshots.

Names are loaded when they are first used: what a container's start needs is cheap, what a pull needs is not.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wherry_images.credentials import Credentials as Credentials
    from wherry_images.database import Database as Database
    from wherry_images.hosts import RegistryConfig as RegistryConfig
    from wherry_images.image import Image as Image
    from wherry_images.layer import Limits as Limits
    from wherry_images.progress import PullEvent as PullEvent
    from wherry_images.progress import PushEvent as PushEvent
    from wherry_images.reference import Reference as Reference
    from wherry_images.reference import parse_reference as parse_reference
    from wherry_images.store import ImageStore as ImageStore

_MODULES = {
    "Credentials": "credentials",
    "Database": "database",
    "Image": "image",
    "ImageStore": "store",
    "Limits": "layer",
    "PullEvent": "progress",
    "PushEvent": "progress",
    "Reference": "reference",
    "RegistryConfig": "hosts",
    "parse_reference": "reference",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name, "errors")
    from importlib import import_module

    loaded = import_module(f"wherry_images.{module}")
    try:
        value: object = getattr(loaded, name)
    except AttributeError:
        raise AttributeError(f"module 'wherry_images' has no attribute {name!r}") from None
    globals()[name] = value
    return value
