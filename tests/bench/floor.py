"""The floor: one tuned script in one channel a host over raw asyncssh; no engine can do with less."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import asyncssh

from tests.bench.work import BEGIN, END, FACTS, HOSTS_LINES, NODE, Door, Order, Work, files, guarded

AT_ONCE = 64


def script(work: Work) -> str:
    """Give the script: one sha256sum over all files, shell builtins for the rest; contents only for what drifted."""
    lines = ["set -e"]
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {path}\n" for path, text in files().items())
    lines.append(f"if ! sha256sum -c --quiet --status 2>/dev/null <<'E-O-S'\n{sums}E-O-S\nthen")
    for path, text in files().items():
        lines.append(f"mkdir -p {path.rpartition('/')[0]}")
        lines.append(f"cat > {path} <<'E-O-F'\n{text}E-O-F")
    lines.append("fi")
    fstab, hosts = f"{NODE}/etc/fstab", f"{NODE}/etc/hosts"
    swap = f'while read -r a b c d; do case "$a $c" in "#"*) ;; *" swap") s=1 ;; esac; done < {fstab}'
    lines += ["s=0", swap, f"[ $s = 0 ] || sed -i '/ swap /s/^/# /' {fstab}"]
    block = "\n".join((BEGIN, *HOSTS_LINES, END))
    lines += [f'h=; while IFS= read -r l; do h="$h$l\n"; done < {hosts}', f"B='{block}'"]
    lines.append(f'case "$h" in *"$B"*) ;; *) printf "%s\\n" "$B" >> {hosts} ;; esac')
    lines += [f"[ -f {flag} ] || {{ sleep {seconds}; : > {flag}; }}" for flag, seconds in guarded(work)]
    lines += [f'while IFS= read -r l; do printf "%s\\n" "$l"; done < {fact}' for fact in FACTS]
    return "\n".join([*lines, "echo done", ""])


async def main(order: Order) -> None:
    """Run the script on all hosts at once."""
    known = asyncssh.import_known_hosts(Path(order.known_hosts).read_text(encoding="utf-8"))
    key = asyncssh.read_private_key(order.key)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(door: Door, work: Work) -> None:
        async with turn:
            link = await asyncssh.connect(
                door.address,
                door.port,
                username="root",
                client_keys=[key],
                known_hosts=known,
                config=None,
                preferred_auth="publickey",
            )
        async with link:
            done = await link.run(script(work), check=True)
            if not str(done.stdout).endswith("done\n"):
                raise RuntimeError(f"{door.name}: {done.stderr!r}")

    await asyncio.gather(*map(one, order.doors, order.works))


if __name__ == "__main__":
    asyncio.run(main(Order.read(Path(sys.argv[1]))))
