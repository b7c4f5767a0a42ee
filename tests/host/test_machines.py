"""What only shows when hosts are compared: clones are named with their likes, and clocks apart are reported."""

from __future__ import annotations

import pytest

from shipway.cluster_file import parse_cluster
from shipway.survey.first_look import Survey, macs_of
from shipway.survey.machines import UNSET_UUIDS, compare, other_order

ADDRESSES = (
    "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n"
    "2: eth0    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0\\       valid_lft forever\n"
    "3: usb0    inet 169.254.3.1/24 scope link usb0\\       valid_lft forever\n"
    "5: docker0    inet 172.17.0.1/16 scope global docker0\\       valid_lft forever\n"
)
MACS = (
    "/sys/class/net/lo/address:00:00:00:00:00:00\n"
    "/sys/class/net/eth0/address:3C:EC:EF:00:00:01\n"
    "/sys/class/net/eth1/address:3c:ec:ef:00:00:02\n"
    "/sys/class/net/usb0/address:be:3a:f2:b6:05:9f\n"
    "/sys/class/net/docker0/address:02:42:ac:11:00:02\n"
)
HARDWARE = "/sys/class/net/eth0/device\n/sys/class/net/eth1/device\n/sys/class/net/usb0/device\n"


def seen(host: str, **other: object) -> Survey:
    values: dict[str, object] = {
        "joined": False,
        "gpus": 0,
        "driver_gpus": 0,
        "driver_said": "",
        "toolkit": False,
        "machine_id": f"id-{host}",
        "product_uuid": f"uuid-{host}",
        "skew": 0.0,
        "macs": (f"mac-{host}",),
    }
    return Survey(host, **(values | other))  # type: ignore[arg-type]


def heard(*surveys: Survey) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fault in compare(surveys):
        found.setdefault(fault.code, []).append(fault.host)
    return found


def test_hosts_of_their_own_have_no_fault() -> None:
    assert heard(seen("a"), seen("b"), seen("c")) == {}
    assert heard() == {}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"machine_id": "x"}, "SHW-311"),
        ({"product_uuid": "4C4C4544-0035-5910-8048-B3C04F384A32"}, "SHW-314"),
        ({"macs": ("m", "n")}, "SHW-315"),
    ],
)
def test_clones_are_named_all_of_them_and_nobody_else(value: dict[str, object], code: str) -> None:
    faults = compare([seen("a", **value), seen("b"), seen("c", **value)])
    assert {(fault.host, fault.code) for fault in faults} == {("a", code), ("c", code)}
    assert len({fault.cause for fault in faults}) == 1  # so that a report says it once for both
    assert "a, c" in faults[0].cause
    assert not any(fault.retryable for fault in faults)


@pytest.mark.parametrize("uuid", ["", *UNSET_UUIDS, UNSET_UUIDS[1].upper()])
def test_a_uuid_that_nobody_set_is_no_ones(uuid: str) -> None:
    assert heard(seen("a", product_uuid=uuid), seen("b", product_uuid=uuid)) == {}


@pytest.mark.parametrize(
    ("skews", "off"),
    [
        ((0, 0, 9), ["c"]),
        ((0, 8), ["b"]),  # a mean would be 4 s from each, and tell of none
        ((0, 0, 8, 8), ["c", "d"]),
        ((100, 100, 100), []),  # the controller's own clock is off: no affair of the hosts
        ((0, 4.9), []),
    ],
)
def test_a_clock_more_than_five_seconds_off_is_reported(skews: tuple[float, ...], off: list[str]) -> None:
    surveys = [seen(name, skew=float(skew)) for name, skew in zip("abcd", skews, strict=False)]
    assert heard(*surveys).get("SHW-312", []) == off


def test_a_mac_counts_where_hardware_has_an_address_of_the_network() -> None:
    assert macs_of(ADDRESSES, MACS, HARDWARE) == ("3c:ec:ef:00:00:01",)
    assert macs_of("", "", "") == ()
    assert macs_of("x\n\n1:", "no path", "/") == ()


@pytest.mark.parametrize(
    "uuid",
    [
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
        "4c4c4544-0000-2010-8020-80c04f202020",
        "Not Settable",
        "Not Specified",
        "To be filled by O.E.M.",
        "11111111-1111-1111-1111-111111111111",
        "AAAAAAAA-AAAA-AAAA-AAAA-AAAAAAAAAAAA",
        "12121212-1212-1212-1212-121212121212",
        "00000000-0000-0000-0000-ac1f6b000000",  # nil, with a MAC that never was set
        *(other_order(uuid) for uuid in UNSET_UUIDS),
    ],
)
def test_a_makers_dummy_is_no_ones_in_either_byte_order(uuid: str) -> None:
    for shown in (uuid, uuid.upper(), f" {uuid}\n"):
        assert heard(seen("a", product_uuid=shown), seen("b", product_uuid=shown)) == {}
    clone = heard(seen("a", product_uuid=uuid, machine_id="m"), seen("b", product_uuid=uuid, machine_id="m"))
    assert clone == {"SHW-311": ["a", "b"]}, "machine-id still tells clones"


def test_the_byte_orders_are_each_others() -> None:
    assert other_order("03000200-0400-0500-0006-000700080009") == "00020003-0004-0005-0006-000700080009"
    assert other_order(other_order("4c4c4544-0035-5910-8048-b3c04f384a32")) == "4c4c4544-0035-5910-8048-b3c04f384a32"


def test_a_uuid_that_a_maker_really_set_still_tells_clones() -> None:
    for uuid in ("4c4c4544-0035-5910-8048-b3c04f384a32", "12345678-1234-5678-90ab-cddeefaabbcd"):
        assert heard(seen("a", product_uuid=uuid), seen("b", product_uuid=uuid)) == {"SHW-314": ["a", "b"]}


def test_a_host_that_is_vouched_for_is_no_clone_by_its_uuid_and_the_error_names_the_key() -> None:
    uuid = "4c4c4544-0035-5910-8048-b3c04f384a32"
    faults = compare([seen("a", product_uuid=uuid), seen("b", product_uuid=uuid)])
    assert all("`not_cloned: true`" in fault.fix for fault in faults)
    assert heard(seen("a", product_uuid=uuid), seen("b", product_uuid=uuid, vouched=True)) == {}
    both = {"vouched": True, "product_uuid": uuid, "macs": ("m",)}
    assert heard(seen("a", **both), seen("b", **both)) == {"SHW-315": ["a", "b"]}
    made = parse_cluster("name: d\nhosts: [{name: a, address: 10.0.0.1, not_cloned: true}]\n")
    assert made.hosts[0].not_cloned
