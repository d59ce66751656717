"""index.json of the content folder: the images' manifests, so that skopeo and umoci can read them in place."""

import json

from wherry_images.layout import FileLock, replace_file
from wherry_images.pull import Stores


def write_index(stores: Stores) -> None:
    """Make index.json say what the database says (image-layout.md, "index.json file")."""
    with FileLock(f"{stores.layout.ingest}/index.lock").held():
        with stores.database.read() as connection:
            rows = connection.execute(
                "SELECT image.manifest, image.media_type, blob.size, image_name.reference, image.document FROM image"
                " JOIN blob ON blob.digest = image.manifest LEFT JOIN image_name ON image_name.image = image.id"
                " ORDER BY image_name.reference"
            ).fetchall()
        manifests = [_entry(*row) for row in rows]
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
        replace_file(f"{stores.layout.content}/index.json", json.dumps(index, indent=1).encode())


def _entry(manifest: str, media_type: str, size: int, reference: str | None, document: str) -> dict[str, object]:
    config = json.loads(document)
    platform = {
        "architecture": config.get("architecture") or "unknown",
        "os": config.get("os") or "linux",
        **({"variant": config["variant"]} if config.get("variant") else {}),
    }
    annotations = {"annotations": {"org.opencontainers.image.ref.name": reference}} if reference else {}
    return {"mediaType": media_type, "digest": manifest, "size": size, "platform": platform, **annotations}
