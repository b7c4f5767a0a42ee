"""What is cut from a machine's answers hides no answer that a parser would read wrongly."""

from __future__ import annotations

import time

from tests.conformance.reduce_machine import addresses, clock, number, ports, release, room

HEAD = "Filesystem 1024-blocks Used Available Capacity Mounted on\n"


def test_a_clock_that_is_off_or_of_another_form_is_seen() -> None:
    assert clock(f"{time.time():.9f}\n") == "now"
    now = time.time()
    for text in (f"{now - 3600:.9f}\n", f"{now:.3f}\n", f"{now:.0f}\n", "", f"{now:.9f}"):
        assert clock(text) == text


def test_no_number_and_no_release_are_seen() -> None:
    assert (number("8\n"), release("6.1.0-28-amd64\n")) == ("a number", "a release")
    for text in ("0\n", "", "8 CPUs\n", "8"):
        assert number(text) == text
    for text in ("Linux\n", "", "6.1\n"):
        assert release(text) == text


def test_room_that_does_not_add_up_or_has_another_form_is_seen() -> None:
    assert room(f"{HEAD}/dev/sda1 1000 300 600 34% /\n").endswith("<percent>% <mount>")
    for row in ("/dev/sda1 1000 300 600 33% /", "/dev/sda1 1000 300 900 25% /", "/dev/sda1 1000 300 34% /"):
        assert room(f"{HEAD}{row}\n").endswith(row)


def test_another_owner_address_or_column_of_a_port_is_seen() -> None:
    line = 'LISTEN 0 4096 127.0.0.1:2379 0.0.0.0:* users:(("etcd",pid=7,fd=8))\n'
    assert ports(line) == "LISTEN 127.0.0.1:2379 0.0.0.0:* etcd"
    for other in (line.replace("etcd", "nginx"), line.replace("127.0.0.1", "*"), line.replace(" 0 4096", " 0")):
        assert ports(other) != ports(line)
    assert ports(line.replace("2379", "40001")) == ""


def test_another_address_or_interface_is_seen() -> None:
    line = "2: eth0    inet 172.30.0.11/24 brd 172.30.0.255 scope global eth0\\       valid_lft forever\n"
    kept = addresses(line)
    assert kept.startswith("<n>: eth0    inet 172.30.0.11/<length> scope global eth0")
    assert addresses(line.replace("0.11", "0.12")) != kept
    assert addresses(line.replace("inet ", "inet6 ")) != kept
