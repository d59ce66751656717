"""Network devices that go into a container's network namespace (config-linux.md "Network Devices")."""

from errno import ENODEV

from wherry_oci.linux.netlink import NetlinkError
from wherry_oci.linux.rtnetlink import RouteSocket, set_link
from wherry_oci.runtime.failure import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def move(devices: "dict[str, Any]", pid: int) -> None:
    """
    Move *devices* (host's name to `{"name": container's name}`) into the network namespace of process *pid*.

    The kernel takes them back to the host when the namespace ends, if they are physical. Raises RuntimeFailure.
    """
    for name, settings in devices.items():
        inside = (settings or {}).get("name") or name
        try:
            with RouteSocket() as route:
                index = route.link(name).index
                route.execute([set_link(index, up=False), set_link(index, name=inside, namespace_pid=pid)])
        except NetlinkError as error:
            kind = "not_found" if error.errno == ENODEV else "system"
            raise RuntimeFailure(kind, f"move network device {name}", str(error), "", error.errno or 0) from None
