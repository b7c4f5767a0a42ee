"""The wire format: many commands in one `sh` script, and their framed outputs separated again.

`r` runs a command that only looks (no input) and goes on whatever it answers; `d` runs one that does something and
ends the script after the first that fails; `l` looks, as `r` does, at what was done: only where all of it was. Each
command is a list of words, each word quoted: nothing is ever glued.

Two words are the script's own, because a shell does in no time what costs a process otherwise: `make_room PATH...`
removes what an earlier run left there, makes the folders of the new files unless they are there, and lets new files be
their owner's alone from then on; `was_whole` takes one line of input and fails unless it is the one that ends a file.

A script reaches its host on standard input (`frame`): it is in no process list and in no log, and as long as it needs
to be (an argument may have 128 KiB: MAX_ARG_STRLEN, execve(2)). The command line that reads it, READER, never changes.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WHOLE = b"whole\n"  # what follows a file in the input; without it, a link that broke would leave half a file in place
PROLOGUE = (
    f"export LC_ALL=C PATH={PATH} DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l\n"
    "c=0\n"
    'f() { c=$?; printf \'\\n%s %s\\n\' "$b" "$c"; printf \'\\n%s\\n\' "$b" >&2; }\n'
    'r() { "$@" </dev/null; f; }\n'
    'd() { [ "$c" = 0 ] || exit 0; "$@"; f; }\n'
    'l() { [ "$c" = 0 ] || exit 0; r "$@"; c=0; }\n'
    'make_room() { umask 022; n=$#; for p; do [ ! -e "$p" ] && [ ! -L "$p" ] || rm -f -- "$p" || return\n'
    '[ -d "${p%/*}/" ] || set -- "$@" "${p%/*}/"; done; shift "$n"\n'
    '[ "$#" = 0 ] || mkdir -p -- "$@" || return; umask 077; }\n'
    'was_whole() { read -r e && [ "$e" = whole ] && return; echo "the input was cut short" >&2; return 1; }\n'
)

OPENING = "--shipway-"
# Reads a line with a token and a size, says the token on both streams, and runs that many bytes of its input. `read`
# takes a byte at a time and dd its size exactly (sh itself reads ahead): the rest of the input is the script's. What
# is before is passed over: a password sudo did not ask for. Any login shell takes it (csh, fish, a restricted one),
# since its quotes hold no backslash, no exclamation mark and no end of a line.
READER = (
    f"sh -c 'while read -r k n; do case $k in {OPENING}*) echo $k; echo $k >&2; "
    'eval "$(dd bs=$n count=1 iflag=fullblock status=none)"; exit;; esac; done; exit 97\''
)


@dataclass(frozen=True, slots=True)
class Output:
    """What one command answered: exit status (timeout(1) gives 124), standard output and error."""

    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether the command ended with exit status 0; nothing else is success."""
        return self.status == 0


def compose(commands: Sequence[Sequence[str]], *, verb: str, after: Sequence[Sequence[str]] = ()) -> tuple[str, str]:
    """Return the script of these commands (verb `r` to look, `d` to do) and the boundary its outputs are framed with.

    `after` are commands that look at what was done, in the same script. The boundary is random, so that no file
    content can imitate it.
    """
    boundary = f"--shipway-{secrets.token_hex(12)}"
    lines = [f"{verb} {shlex.join(words)}\n" for words in commands]
    lines += [f"l {shlex.join(words)}\n" for words in after]
    return f"b={boundary}\n{PROLOGUE}{''.join(lines)}", boundary


def frame(text: str, stdin: bytes = b"") -> tuple[str, bytes]:
    """Return a random token, and what READER is to be fed with to run the script and leave it this input.

    The script is one group of commands: one that was cut short is a syntax error, and nothing of it runs.
    """
    token = f"{OPENING}{secrets.token_hex(12)}"
    group = f"{{\n{text}}}\n".encode()
    return token, f"{token} {len(group)}\n".encode() + group + stdin


def strip_noise(token: str, data: str) -> str | None:
    """Return what a stream holds after the token: what the script itself printed; None where it never began."""
    _, found, own = data.partition(f"{token}\n")
    return own if found else None


def split(boundary: str, stdout: str, stderr: str) -> list[Output]:
    """Return the output of every command that ended, in order; a script cut short gives fewer than were sent."""
    out_parts = stdout.split(f"\n{boundary} ")
    err_parts = stderr.split(f"\n{boundary}\n")
    outputs: list[Output] = []
    text = out_parts[0]
    for index, part in enumerate(out_parts[1:]):
        status, _, following = part.partition("\n")
        error = err_parts[index] if index < len(err_parts) else ""
        outputs.append(Output(int(status), text, error))
        text = following
    return outputs
