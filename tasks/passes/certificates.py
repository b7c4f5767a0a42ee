"""What a run about certificates was asked for, and what it has seen of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from shipway.errors import ShipwayError
from shipway.kubeadm.certificates import WITHIN_DAYS


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One certificate of a host: its end (UTC, ISO 8601), days left, serial number, and where it is served.

    `renewed_by` says who renews it: kubeadm (this command), the kubelet itself, or nobody. `finding` is empty where
    nothing is to be said of it.
    """

    host: str
    name: str
    ends: str
    days: float
    serial: str
    renewed_by: str
    served: str = ""
    finding: str = ""


@dataclass
class CertificatePass:
    """`within` days of its end a certificate is renewed; with `everything` each one is.

    `before` has the serial numbers of the first look by host and name, `refusals` what keeps from changing a host,
    `kubelets` the hosts on which something of the kubelet's is not as wanted, `left` the requests that nobody approves.
    """

    within: int = WITHIN_DAYS
    everything: bool = False
    rows: dict[str, tuple[CertificateRow, ...]] = field(default_factory=dict)
    before: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: dict[str, list[ShipwayError]] = field(default_factory=dict)
    kubelets: set[str] = field(default_factory=set)
    left: tuple[str, ...] = ()
