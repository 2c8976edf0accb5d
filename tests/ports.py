"""Ports of this machine, for servers and Ray clusters of tests and benchmarks."""

import random
import socket


def is_free(port: int) -> bool:
    """Whether nothing listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    """Below the ports that the system hands out by itself, so that it stays free until it is used."""
    return next(port for port in random.sample(range(20_000, 32_000), 1000) if is_free(port))
