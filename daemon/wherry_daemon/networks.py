"""Networks and volumes."""

import attrs

from wherry.engineapi import document
from wherry.engineapi.networks import (
    EndpointIPAMConfig,
    EndpointSettings,
    NetworkConnect,
    NetworkCreate,
    NetworkCreated,
    NetworkDisconnect,
    NetworksPruned,
)
from wherry.engineapi.volumes import VolumeCreate, VolumeList, VolumesPruned
from wherry_daemon.context import Context, filters
from wherry_daemon.http import Answer, Empty, Json, Request
from wherry_daemon.refusals import BadParameter
from wherry_daemon.routes import Routes

route = Routes()


@route("GET", "/networks")
def listing(context: Context, request: Request) -> Answer:
    found = context.client.networks.list(filters=filters(request.mapping("filters")))
    return Json(document=[attrs.evolve(network.document, containers={}) for network in found])


@route("POST", "/networks/create")
def create(context: Context, request: Request) -> Answer:
    asked = request.parsed(NetworkCreate)
    if not asked.name:
        raise BadParameter("invalid network name: it is empty")
    made = context.client.networks.create(
        asked.name,
        driver=asked.driver or "bridge",
        options=asked.options,
        ipam=document.asked(asked.ipam) if asked.ipam is not None and asked.ipam.config else None,
        internal=asked.internal,
        attachable=asked.attachable,
        enable_ipv6=bool(asked.enable_ipv6),
        labels=asked.labels,
        scope=asked.scope or None,
    )
    return Json(status=201, document=NetworkCreated(id=made.id))


@route("GET", "/networks/{id}")
def inspect(context: Context, request: Request, name: str) -> Answer:
    return Json(document=context.client.networks.get(name).document)


@route("DELETE", "/networks/{id}")
def remove(context: Context, request: Request, name: str) -> Answer:
    context.client.networks.get(name).remove()
    return Empty()


@route("POST", "/networks/{id}/connect")
def connect(context: Context, request: Request, name: str) -> Answer:
    asked = request.parsed(NetworkConnect)
    place = asked.endpoint_config or EndpointSettings()
    addresses = place.ipam_config or EndpointIPAMConfig()
    context.client.networks.get(name).connect(
        context.container(asked.container).id,
        aliases=place.aliases,
        links=place.links,
        ipv4_address=addresses.ipv4_address or None,
        ipv6_address=addresses.ipv6_address or None,
        mac_address=place.mac_address or None,
    )
    return Empty(status=200)


@route("POST", "/networks/{id}/disconnect")
def disconnect(context: Context, request: Request, name: str) -> Answer:
    asked = request.parsed(NetworkDisconnect)
    context.client.networks.get(name).disconnect(context.container(asked.container).id, force=asked.force)
    return Empty(status=200)


@route("POST", "/networks/prune")
def prune(context: Context, request: Request) -> Answer:
    removed = context.client.networks.prune(filters(request.mapping("filters")))
    return Json(document=NetworksPruned(networks_deleted=removed))


@route("GET", "/volumes")
def volume_listing(context: Context, request: Request) -> Answer:
    found = context.client.volumes.list(filters(request.mapping("filters")))
    return Json(document=VolumeList(volumes=[volume.document for volume in found]))


@route("POST", "/volumes/create")
def volume_create(context: Context, request: Request) -> Answer:
    asked = request.parsed(VolumeCreate)
    made = context.client.volumes.create(
        asked.name or None, driver=asked.driver or "local", driver_opts=asked.driver_opts, labels=asked.labels
    )
    return Json(status=201, document=made.document)


@route("GET", "/volumes/{id}")
def volume_inspect(context: Context, request: Request, name: str) -> Answer:
    return Json(document=context.client.volumes.get(name).document)


@route("DELETE", "/volumes/{id}")
def volume_remove(context: Context, request: Request, name: str) -> Answer:
    if not request.flag("force"):
        context.client.volumes.get(name).remove()
    else:
        from wherry.volumecollection import Volume

        Volume(name, context.engine).remove(force=True)
    return Empty()


@route("POST", "/volumes/prune")
def volume_prune(context: Context, request: Request) -> Answer:
    done = context.client.volumes.prune(filters(request.mapping("filters")))
    return Json(document=VolumesPruned(volumes_deleted=list(done.names), space_reclaimed=done.size))
