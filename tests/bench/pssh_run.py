"""The work for parallel-ssh: one script per host, all hosts at once, in its libssh2 client."""

from __future__ import annotations

import sys
from pathlib import Path

from pssh.clients import ParallelSSHClient

from tests.bench.script import script
from tests.bench.work import Order


def main(order: Order) -> None:
    """Run the script on all hosts at once."""
    client = ParallelSSHClient(
        [door.address for door in order.doors],
        user="root",
        port=order.doors[0].port,
        pkey=order.key,
        pool_size=len(order.doors),
        num_retries=1,
        allow_agent=False,
    )
    scripts = tuple((script(work),) for work in order.works)
    for output in client.run_command("%s", host_args=scripts):
        lines = list(output.stdout)
        if not lines or lines[-1] != "done":
            raise RuntimeError(f"{output.host}: {lines[-3:]} {list(output.stderr)[-3:]}")


if __name__ == "__main__":
    main(Order.read(Path(sys.argv[1])))
