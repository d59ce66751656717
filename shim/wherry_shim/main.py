"""
A shim's first steps: `python -I -S -c … DIRECTORY CGROUP MODULES`, the container's, as `wherry_shim.launch` starts it.

Descriptor 3 is the line to whoever started it, on which it waits for its order: one message, `{"run": …}`, with the
descriptor of the container's lock beside it, which it holds for as long as it lives, and perhaps that of the network
namespace that bridges are in. The answer is `{"ok": true}` once
the container runs, or `{"ok": false, …}`. When the line is closed before an order has come, nothing was wanted of it.

With `"hold": true` in the order the container is made but for its program, and `{"ok": true}` says so. Then it waits
for `{"process": …}`, what to run in it, and answers again; any other word, or the line's end, has it remove everything.
"""

import gc
import os
import sys
from _socket import socket

from wherry_oci.linux import process as p
from wherry_oci.runtime.channel import Channel
from wherry_shim.maker import Maker

LINE = 3
_FIRST_UNNEEDED = 4
_LARGEST_DESCRIPTOR = 1 << 20
_FAILED = 1


def main() -> None:
    """The whole life of a shim."""
    _detach()
    gc.disable()  # a start makes no garbage worth a search, and a search writes to pages shared with the child
    status = _FAILED
    try:
        status = _serve(Channel(socket(fileno=LINE)), *sys.argv[1:4])
    finally:
        os._exit(status)  # nothing is left to be done, and an interpreter's own end costs 2 ms


def _detach() -> None:
    """Be nobody's child but init's, and hold nothing of the starter's."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    os.closerange(_FIRST_UNNEEDED, _LARGEST_DESCRIPTOR)
    os.set_inheritable(LINE, False)
    p.set_child_subreaper()
    p.set_name(b"wherry-shim")


def _serve(line: Channel, directory: str, cgroup: str, modules: str) -> int:
    try:
        maker = Maker(cgroup)  # first: it has as much to import as this process, and does so beside it
        from wherry_shim.supervisor import Supervisor
    except BaseException as error:
        line.receive()
        text = f"{type(error).__name__}: {error}"
        _report(line, {"ok": False, "kind": "system", "message": text, "text": text})
        raise
    if not line.has_message():
        for name in filter(None, modules.split(",")):  # it will need them, and there is time now
            __import__(name)
    order = line.receive()
    if order is None:
        from wherry_shim import shimgroup

        maker.close(wait=True)
        shimgroup.remove(cgroup)
        return 0
    bridges = order[1][1] if len(order[1]) > 1 else None
    return _supervise(line, lambda orders: _supervisor(Supervisor, orders, bridges, maker), directory, order[0])


def _supervisor(usual: "type[Supervisor]", orders: "dict[str, Any]", bridges: int | None, maker: Maker) -> "Supervisor":
    if not orders.get("runtime"):
        return usual(orders, bridges, maker)
    from wherry_shim import shimgroup
    from wherry_shim.foreign import ForeignSupervisor

    maker.close(wait=True)  # the other runtime makes the process, and its cgroup, too
    shimgroup.remove(orders["cgroup"])
    return ForeignSupervisor(orders, bridges)


def _supervise(
    line: Channel, make: "Callable[[dict[str, Any]], Supervisor]", directory: str, order: "dict[str, Any]"
) -> int:
    run_directory: str = order["run"]
    from wherry_oci.runtime import quickjson

    try:
        with open(f"{directory}/shim.json", "rb") as file:
            supervisor = make(quickjson.loads(file.read()))
        if not order.get("hold"):
            supervisor.start()
        elif not _hold(line, supervisor):
            return 0
    except BaseException as error:
        from wherry_shim import faults

        _report(line, {"ok": False, **faults.report_of(error)})
        faults.note(run_directory, error)
        return _FAILED
    _report(line, {"ok": True})
    line.close()
    gc.freeze()
    gc.enable()
    try:
        supervisor.run()
    except BaseException as error:
        from wherry_shim import faults

        faults.note(run_directory, error)
        return _FAILED
    return 0


def _hold(line: Channel, supervisor: "Supervisor") -> bool:
    """Whether the container runs: that it is ready was told, and what it should run."""
    supervisor.prepare()
    _report(line, {"ok": True})
    process = supervisor.await_program(line)
    if process is None:
        supervisor.withdraw()
        return False
    supervisor.start_prepared(process)
    return True


def _report(line: Channel, message: "dict[str, object]") -> None:
    try:
        line.send(message)
    except OSError:  # the starter was killed: the container is what it wanted all the same
        pass


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_shim.supervisor import Supervisor
