"""What a run that replaces a host was asked for, and which machine of the two it is about."""

from __future__ import annotations

from dataclasses import dataclass

from shipway.cluster.model import Cluster
from shipway.os.family import Family
from shipway.survey.first_look import Survey


@dataclass
class Replacement:
    """The machine that comes is the file's; the one that goes is in `old`. Empty in every other run."""

    remake: bool = False  # the machine that comes is the one that goes, a person said
    address: str = ""  # of the machine that goes, a person said
    old: Cluster | None = None  # the cluster with the machine that goes; None where none has to
    where: str = ""  # the address of the machine in `old`, HOST or HOST:PORT
    agreed: Cluster | None = None  # `old`, as the run was allowed to go on with it
    itself: bool = False  # the machine of the file is the host's own already
    known: bool = False  # the leading control plane's /etc/hosts names the host at the address of the file
    aside: tuple[Survey | None, Family | None] = (None, None)  # seen of the machine that the run is not about now
