"""Images: registries, the content store, unpacking and snapshots."""
