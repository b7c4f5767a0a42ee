"""The driver of a host's GPUs, where the cluster file has one: a stage of hosts that have not joined, and of waves."""

from __future__ import annotations

from shipway.cluster.model import Cluster
from shipway.cluster.parts import HostSpec
from shipway.gpu.chosen import VENDOR
from shipway.gpu.driver.imex import Fellows
from shipway.gpu.driver.packages import BUILT_ON_HOST, REPOSITORY
from shipway.gpu.nvidia.answers import NVIDIA
from shipway.host.session import Host
from shipway.os.family import Family
from shipway.step import Check, Step
from shipway.steps.gpu.driver.choice import Chooser
from shipway.steps.gpu.driver.declared import DriverDeclared
from shipway.steps.gpu.driver.imex import ImexChannels, ImexConfigured, ImexLeftToPods, ImexReady, ImexRuns
from shipway.steps.gpu.driver.module import (
    DevicesThere,
    MemoryIsDrivers,
    ModuleLoaded,
    NextKernelHasModule,
    early_files,
)
from shipway.steps.gpu.driver.refusals import refusals
from shipway.steps.gpu.driver.services import FabricManaged, PersistenceRuns
from shipway.steps.gpu.healthy import FabricReady, GpusHealthy


def is_declared(cluster: Cluster, host: HostSpec) -> bool:
    """Say whether the file has a driver for a host."""
    return VENDOR is NVIDIA and cluster.gpu.driver.source != "none" and host.gpus != 0


def command(file: str) -> str:
    """Return the command that changes the driver of hosts in service."""
    return f"shipway maintain {file or 'FILE'} --driver"


def steps(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return the steps up to a restart, and those after it, in order; none where the file has no driver."""
    return [*before_restart(cluster, host, family), *after_restart(cluster, host, family)]


def _sources(cluster: Cluster, family: Family) -> list[Step[Host]]:
    """Return what makes known to a host where its driver comes from; the system's own archive is another stage's."""
    if cluster.gpu.driver.source == REPOSITORY and family.drivers() is not None:
        return [family.repository(REPOSITORY, cluster)]
    return family.base_repository(cluster)


def before_restart(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return what brings the packages, as a whole, and keeps them."""
    drivers, driver = family.drivers(), cluster.gpu.driver
    if drivers is None or not is_declared(cluster, host):
        return []
    built, sources = driver.source in BUILT_ON_HOST, _sources(cluster, family)
    chooser = Chooser(driver, family, sources)
    return [
        *early_files(drivers),
        MemoryIsDrivers(drivers, driver.of_branch),
        *(sources if driver.source == REPOSITORY else []),
        *drivers.kept(driver.version or f"{driver.of_branch}."),
        *([drivers.headers()] if built else []),
        *_left_to_pods(cluster),
        drivers.together(f"the driver is {driver.said}, all of it", chooser.packages, driver.said),
        drivers.held(),
        NextKernelHasModule(drivers),
    ]


def _left_to_pods(cluster: Cluster) -> list[Step[Host]]:
    """Return what keeps a host from running IMEX, unless the file lets it."""
    return [] if cluster.gpu.driver.imex == "host" else [ImexLeftToPods(cluster.gpu.driver.imex)]


def imex(cluster: Cluster, host: HostSpec, fellows: Fellows) -> list[Check[Host]]:
    """Return what has a host run IMEX once its driver is there: what tells of all hosts is asked at that moment."""
    if not (is_declared(cluster, host) and cluster.gpu.driver.imex == "host"):
        return []
    return [ImexConfigured(host.name, fellows), ImexRuns(), ImexReady(), ImexChannels()]


def after_restart(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return what loads the module, and all that must live beside it."""
    drivers = family.drivers()
    if drivers is None or not is_declared(cluster, host):
        return []
    return [
        ModuleLoaded(drivers),
        DevicesThere(),
        FabricManaged(),  # the daemon after it may wait for the fabric, and nothing else brings that up (nvrc#159)
        PersistenceRuns(),
    ]


def proof(host: HostSpec) -> list[Check[Host]]:
    """Return what must be so in the end: every GPU answers, and they are joined."""
    return [GpusHealthy(None if host.gpus == "auto" else host.gpus), FabricReady()]


def checks(cluster: Cluster, host: HostSpec, family: Family) -> list[Check[Host]]:
    """Return what forbids to install the driver, all of it at once."""
    return refusals(cluster.gpu.driver, family, _sources(cluster, family)) if is_declared(cluster, host) else []


def declared(cluster: Cluster, host: HostSpec, family: Family, file: str) -> list[Check[Host]]:
    """Return what is compared on a host in service, where nothing of it is ever changed, and what protects it."""
    drivers = family.drivers()
    if drivers is None or not is_declared(cluster, host):
        return []
    left: list[Check[Host]] = [*_left_to_pods(cluster)]
    return [DriverDeclared(cluster.gpu.driver, family, command(file)), drivers.held(), *left]
