"""How much room an engine's images, containers and volumes take, in Docker's words."""

from typing import TYPE_CHECKING

import attrs

from wherry.containersummary import summaries
from wherry.engineapi.system import DiskUsage
from wherry.engineapi.volumes import UsageData
from wherry.engineapi.volumes import Volume as VolumeDocument
from wherry.inspection import image_summary

if TYPE_CHECKING:
    from wherry.client import Client
    from wherry.volumecollection import Volume


def measure(client: "Client") -> DiskUsage:
    """`GET /system/df`."""
    usage = client.images.usage()
    by_id = {one.id: one for one in usage.images}
    images = []
    for image in client.images.list():
        summary = image_summary(image)
        if (known := by_id.get(image.id)) is not None:
            size = known.unique + known.shared
            summary = attrs.evolve(summary, size=size, shared_size=known.shared, containers=known.holders)
        images.append(summary)
    return DiskUsage(
        layers_size=usage.layers,
        images=images,
        containers=summaries(client._engine, all=True, sizes=True),
        volumes=[_volume(volume) for volume in client.volumes.list()],
        build_cache=[],
    )


def _volume(volume: "Volume") -> VolumeDocument:
    used = UsageData(size=volume.size, ref_count=len(volume.containers))
    return attrs.evolve(volume.document, usage_data=used)
