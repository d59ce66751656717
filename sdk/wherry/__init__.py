"""Containers from one Python process: `Client().run("nginx", ports={80: 8080})`."""

TYPE_CHECKING = False  # importing typing for it would cost 7 ms
if TYPE_CHECKING:
    from wherry.client import Client
    from wherry.container import Container
    from wherry.dockerhost import docker_host
    from wherry.errors import WherryError
    from wherry.mounts import Mount
    from wherry.readiness import Exec, File, Health, Http, LogLine, Port

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Container",
    "Exec",
    "File",
    "Health",
    "Http",
    "LogLine",
    "Mount",
    "Port",
    "WherryError",
    "__version__",
    "docker_host",
]

# Imported when first named, so that importing wherry costs next to nothing.
_HOMES = {
    "Client": "wherry.client",
    "Container": "wherry.container",
    "Mount": "wherry.mounts",
    **dict.fromkeys(("Exec", "File", "Health", "Http", "LogLine", "Port"), "wherry.readiness"),
    "WherryError": "wherry.errors",
    "docker_host": "wherry.dockerhost",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'wherry' has no attribute {name!r}") from None
    from importlib import import_module

    return getattr(import_module(home), name)
