"""Networks and volumes."""

from typing import Any

from wherry_daemon.context import Context, filters
from wherry_daemon.http import Answer, Empty, Json, Request
from wherry_daemon.refusals import BadParameter
from wherry_daemon.routes import Routes

route = Routes()


@route("GET", "/networks")
def listing(context: Context, request: Request) -> Answer:
    found = context.client.networks.list(filters=filters(request.mapping("filters")))
    return Json(document=[{**network.attrs, "Containers": {}} for network in found])


@route("POST", "/networks/create")
def create(context: Context, request: Request) -> Answer:
    body = request.object()
    name = str(body.get("Name") or "")
    if not name:
        raise BadParameter("invalid network name: it is empty")
    ipam = body.get("IPAM") or {}
    made = context.client.networks.create(
        name,
        driver=body.get("Driver") or "bridge",
        options=body.get("Options") or None,
        ipam=ipam if ipam.get("Config") else None,
        internal=bool(body.get("Internal")),
        attachable=bool(body.get("Attachable")),
        enable_ipv6=bool(body.get("EnableIPv6")),
        labels=body.get("Labels") or None,
        scope=body.get("Scope") or None,
    )
    return Json(status=201, document={"Id": made.id, "Warning": ""})


@route("GET", "/networks/{id}")
def inspect(context: Context, request: Request, name: str) -> Answer:
    return Json(document=context.client.networks.get(name).attrs)


@route("DELETE", "/networks/{id}")
def remove(context: Context, request: Request, name: str) -> Answer:
    context.client.networks.get(name).remove()
    return Empty()


@route("POST", "/networks/{id}/connect")
def connect(context: Context, request: Request, name: str) -> Answer:
    body = request.object()
    endpoint = body.get("EndpointConfig") or {}
    ipam = endpoint.get("IPAMConfig") or {}
    context.client.networks.get(name).connect(
        _container(context, body),
        aliases=endpoint.get("Aliases") or None,
        links=endpoint.get("Links") or None,
        ipv4_address=ipam.get("IPv4Address") or None,
        ipv6_address=ipam.get("IPv6Address") or None,
        mac_address=endpoint.get("MacAddress") or None,
    )
    return Empty(status=200)


@route("POST", "/networks/{id}/disconnect")
def disconnect(context: Context, request: Request, name: str) -> Answer:
    body = request.object()
    context.client.networks.get(name).disconnect(_container(context, body), force=bool(body.get("Force")))
    return Empty(status=200)


def _container(context: Context, body: dict[str, Any]) -> str:
    return context.container(str(body.get("Container") or "")).id


@route("POST", "/networks/prune")
def prune(context: Context, request: Request) -> Answer:
    return Json(document={"NetworksDeleted": context.client.networks.prune(filters(request.mapping("filters")))})


@route("GET", "/volumes")
def volume_listing(context: Context, request: Request) -> Answer:
    found = context.client.volumes.list(filters(request.mapping("filters")))
    return Json(document={"Volumes": [volume.attrs for volume in found], "Warnings": None})


@route("POST", "/volumes/create")
def volume_create(context: Context, request: Request) -> Answer:
    body = request.object()
    made = context.client.volumes.create(
        body.get("Name") or None,
        driver=body.get("Driver") or "local",
        driver_opts=body.get("DriverOpts") or None,
        labels=body.get("Labels") or None,
    )
    return Json(status=201, document=made.attrs)


@route("GET", "/volumes/{id}")
def volume_inspect(context: Context, request: Request, name: str) -> Answer:
    return Json(document=context.client.volumes.get(name).attrs)


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
    return Json(document={"VolumesDeleted": list(done.names), "SpaceReclaimed": done.size})
