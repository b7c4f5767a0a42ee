"""What installing a GPU's driver asks of a system: its packages as one, its boot images, its kernels' headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from shipway.facts.packages import PackageInfo
from shipway.host.session import Host
from shipway.step import Check, Step

# Tells right then which packages in which versions a host is to have; raises what keeps from telling.
Choose = Callable[[Host], Awaitable[Mapping[str, str]]]


class Drivers(Protocol):
    """Systems on which a driver is installed by packages; a family without has none of these."""

    async def installed(self, on: Host) -> dict[str, PackageInfo]:
        """Return the packages of a driver that a host has, by name: those whose version is a driver's."""

    async def known(self, on: Host, words: Sequence[str]) -> list[str]:
        """Return the names of packages that the host's repositories know and that have one of these words in them."""

    async def missing_parts(self, on: Host) -> tuple[str, str]:
        """Return which parts of the system's own archive that have drivers a host's sources lack, and how to add them.

        Both in words for people, and empty where none is lacking.
        """

    async def unowned(self, on: Host, paths: Sequence[str]) -> list[str]:
        """Return which of these files are there and come from no package."""

    async def kernel_flavours(self, on: Host) -> tuple[str, ...]:
        """Return the endings of the packages by which the host follows new kernels: `generic`, `amd64`."""

    def early(self, name: str, path: str, content: str) -> Step[Host]:
        """Return the step that writes a file which a boot image holds a copy of, and makes the images anew."""

    def kept(self, version: str) -> Sequence[Check[Host]]:
        """Return the steps that let nothing but this version (or its beginning) be chosen, by whatever upgrade."""

    def headers(self) -> Step[Host]:
        """Return the step that installs what a module is built with, for the running kernel and the next one."""

    def together(self, name: str, choose: Choose, version: str) -> Step[Host]:
        """Return the step that brings all packages of a driver to their versions in one transaction.

        Whatever else of a driver comes with them has the same version, or nothing is changed (SHW-689). What another
        version of the driver brought may go. It may end workloads, and its impact says so.
        """

    def held(self) -> Step[Host]:
        """Return the step that holds every package of the driver."""
