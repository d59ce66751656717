"""Manifests, indexes and configurations: any bytes are understood, or a typed error."""

import sys
from importlib import import_module

atheris = import_module("atheris")  # it is installed for fuzzing alone

with atheris.instrument_imports(include=["wherry_images", "wherry_oci"]):
    import json

    from wherry_images import documents, image, platform
    from wherry_images.errors import InvalidImage, PlatformNotFound, UnsupportedImage
    from wherry_oci.spec.digest import Digest
    from wherry_oci.spec.manifest import INDEXES, MANIFESTS, Index

_TYPES = ("", "application/json", *INDEXES, *MANIFESTS)


def one_input(data: bytes) -> None:
    kind = _TYPES[data[0] % len(_TYPES)] if data else ""
    content = data[1:]
    try:
        parsed = documents.parse_manifest(content, kind, "fuzz")
        if isinstance(parsed, Index):
            platform.best([one.platform for one in parsed.manifests], platform.host_platform())
        else:
            documents.check_image(parsed, "fuzz")
    except (InvalidImage, UnsupportedImage, PlatformNotFound):
        pass
    try:
        documents.parse_config(content, "fuzz")
        # what the checked reader takes, the fast one must take too
        image.image_of(
            json.loads(content), id=Digest("sha256:0"), manifest=Digest("sha256:0"), names=(), digests=(), size=0
        )
    except InvalidImage:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
