"""The work for pyinfra, written as its own manual writes deploys: run by `pyinfra INVENTORY DEPLOY`."""

from io import StringIO

from pyinfra import host
from pyinfra.facts.files import File as FileFact
from pyinfra.facts.server import Command
from pyinfra.operations import files, server

data = host.data
for path, text in data.files.items():
    files.put(name=f"Put {path}", src=StringIO(text), dest=path, mode="644")
files.replace(name="No swap in fstab", path=f"{data.node}/etc/fstab", text=r"^\([^#].* swap .*\)$", replace=r"# \1")
files.block(
    name="Name every host",
    path=f"{data.node}/etc/hosts",
    content=data.hosts_lines,
    marker="# {mark} shipway",
    begin="BEGIN",
    end="END",
)
for flag, seconds in data.guarded:
    if not host.get_fact(FileFact, path=flag):
        server.shell(name=f"Run {flag}", commands=[f"sleep {seconds}; touch {flag}"])
for fact in data.facts:
    host.get_fact(Command, command=f"cat {fact}")
