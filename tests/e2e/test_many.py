"""
Many clients of one container: its shim stays as small as it was.

`WHERRY_MANY` is how many execs and attachments there are (1,000 in the long run; CI takes fewer).
"""

import os
from pathlib import Path

import pytest

from support.leftovers import settled
from wherry import Client

pytestmark = pytest.mark.e2e

_MANY = int(os.environ.get("WHERRY_MANY", "60"))
_WARM = 30
_KIB = 1024


def _memory(shim: int) -> int:
    """Bytes that are the shim's alone."""
    lines = Path(f"/proc/{shim}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith("Private_"))


def _held(shim: int) -> tuple[int, int]:
    """Its descriptors and children."""
    children = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
    return len(os.listdir(f"/proc/{shim}/fd")), len(children)


def test_many_execs_and_attachments_leave_a_shim_as_it_was(client: Client) -> None:
    """Memory flat, no process and no descriptor left."""
    with client.run("busybox", "cat", network="none", stdin_open=True) as container:
        shim = client._engine.state(container._record).shim

        def use(count: int) -> None:
            for _ in range(count):
                assert container.exec("true").exit_code == 0
                with container.attach() as attachment:
                    attachment.write(b"x\n")
                    assert attachment.read(30) == ("stdout", b"x\n")

        use(_WARM)
        memory, held = _memory(shim), _held(shim)
        use(_MANY)
        grown = _memory(shim) - memory
        print(f"{_MANY} execs and attachments: {memory} bytes and {grown} more; {held} became {_held(shim)}")
        assert grown < 256 * _KIB
        # the last client's connection is closed a moment after the client has gone
        assert settled(lambda: [] if _held(shim) <= held else [str(_held(shim))]) == []


def test_a_client_that_does_not_read_blocks_nobody(client: Client) -> None:
    """The container writes on, the log has all of it, the shim keeps little of it, the client is let go of."""
    script = "read go; head -c 64000000 /dev/zero; read go"
    with (
        client.run("busybox", ["sh", "-c", script], network="none", stdin_open=True) as container,
        container.attach() as silent,
    ):
        shim = client._engine.state(container._record).shim
        before = _memory(shim)
        silent.write(b"\n")
        written = 0
        for _ in range(10_000):
            with container._engine.log_reader(container._record) as reader:
                written = sum(len(piece.content) for piece in reader.pieces())
            if written == 64_000_000:
                break
        assert written == 64_000_000
        assert _memory(shim) - before < 16 << 20
        with container.attach() as other:
            other.write(b"\n")
            assert other.wait(30) == 0
