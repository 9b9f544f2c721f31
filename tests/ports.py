"""Ports for programs that take a number and cannot choose one themselves."""

import os
import random
import socket

FIRST = 20_000
"""Below it are ports of well-known services and of Ray's workers."""


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now.

    They lie below those that the system gives to connections (32768 and up by default): one of these may be taken between now and the
    program's start, by any other process.
    """
    draw, found = random.Random(os.urandom(8)), list[int]()
    while len(found) < count:
        port = draw.randrange(FIRST, _first_of_connections())
        with socket.socket() as one:
            try:
                one.bind(("", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def _first_of_connections() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            first = int(file.read().split()[0])
    except OSError:
        return 32768
    return first if first > FIRST + 1000 else 32768
