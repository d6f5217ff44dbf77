"""The proxy that fault tests cut: silence while it is cut, and nothing lost when it heals."""

import socket
import threading

import pytest

from loadtests.proxy import Proxy


@pytest.fixture
def echo() -> int:
    """The port of a server that says everything again, once to one client."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = server.accept()
        with client, server:
            while data := client.recv(1024):
                client.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def test_what_is_sent_while_it_is_cut_arrives_when_it_heals(echo: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        door = int(probe.getsockname()[1])
    with Proxy({door: echo}) as proxy, socket.create_connection(("127.0.0.1", door)) as client:
        assert proxy.bootstrap == f"127.0.0.1:{door}"
        client.sendall(b"before")
        assert client.recv(6) == b"before"
        proxy.cut()
        client.sendall(b"meanwhile")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(9)
        proxy.heal()
        client.settimeout(20)
        assert client.recv(9) == b"meanwhile"
