"""What the login shell of a simulated host prints before the command that an SSH session asked for.

bash as Debian and Ubuntu build it reads ~/.bashrc for a command too when sshd started it (SSH_SOURCE_BASHRC in its
config-top.h): what stands there above the usual guard for shells that are not interactive is run, and its output comes
first on the session's own standard output and error.
"""

from __future__ import annotations

import shlex

from lab.simulated.host import SimulatedHost

NOISE = (
    'echo "Welcome to $HOSTNAME - authorised use only"\n'
    'echo "mesg: ttyname failed: Inappropriate ioctl for device" >&2\n'
    "case $- in *i*) ;; *) return;; esac\n"
)


def rc_file(user: str) -> str:
    """Return the path of a user's ~/.bashrc."""
    return "/root/.bashrc" if user == "root" else f"/home/{user}/.bashrc"


def make_noisy(host: SimulatedHost, user: str = "ops") -> None:
    """Let the user's ~/.bashrc print a line on standard output and one on standard error, as many sites' do."""
    host.files.write(rc_file(user), NOISE.encode())


def startup_output(host: SimulatedHost, user: str) -> tuple[bytes, bytes]:
    """Return what ~/.bashrc prints on standard output and error; `echo` is the one command that it may hold here."""
    outputs = {False: "", True: ""}
    for line in host.files.text(rc_file(user)).splitlines():
        if line.startswith("case $- in"):
            break
        words = shlex.split(line.replace("$HOSTNAME", host.kernel.hostname), comments=True)
        if words[:1] == ["echo"]:
            to_error = words[-1] == ">&2"
            outputs[to_error] += " ".join(words[1 : -1 if to_error else None]) + "\n"
    return outputs[False].encode(), outputs[True].encode()
