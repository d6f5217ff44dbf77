"""Kafka's jars: fetched once by their coordinates, and used only where they match the lock."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy" / "kafka"
LOCK = DEPLOY / "jars.lock"
ROOTS = ("org.apache.kafka:kafka_2.13:4.2.1", "org.slf4j:slf4j-simple:1.7.36")


class JarError(RuntimeError):
    """A jar could not be fetched, or is not the one that the lock names."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock: `group:artifact:version sha256`."""

    coordinates: str
    sha256: str

    @property
    def filename(self) -> str:
        """The name that it has in a Maven repository and in the cache."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def default_cache() -> Path:
    """Where fetched jars are kept: $POINTSMAN_CACHE, or ~/.cache/pointsman."""
    return Path(os.environ.get("POINTSMAN_CACHE") or Path.home() / ".cache" / "pointsman")


def read_lock(path: Path = LOCK) -> list[Jar]:
    """The jars of a lock file, in its order."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [Jar(*line.split()) for line in lines if line and not line.startswith("#")]


def ensure(cache: Path | None = None, lock: Path = LOCK) -> list[Path]:
    """Paths of all locked jars, after fetching those that are missing and hashing every one.

    Raises JarError naming the jar that is missing and cannot be fetched, or whose bytes are not the locked ones.
    """
    folder = (cache or default_cache()) / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    jars = read_lock(lock)
    with _exclusive(folder):
        missing = [jar for jar in jars if not (folder / jar.filename).exists()]
        if missing:
            _fetch(missing, folder)
    paths = [folder / jar.filename for jar in jars]
    for jar, path in zip(jars, paths, strict=True):
        _verify(jar, path)
    return paths


def resolve_lock() -> str:
    """The text of a new lock: ROOTS and all that they need at run time, resolved and hashed now."""
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        roots = [context.create_dependency(root) for root in ROOTS]
        _, needed = context.resolver.resolve(roots)
        artifacts = [dependency.artifact for dependency in (*roots, *needed)]
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda artifact: artifact.resolve(), artifacts))
        named = zip(artifacts, paths, strict=True)
        lines = sorted(f"{a.groupId}:{a.artifactId}:{a.version} {_sha256(path)}" for a, path in named)
    return "\n".join(["# Written by `pointsman kafka lock`.", *lines, ""])


def _fetch(jars: list[Jar], folder: Path) -> None:
    """Download to a scratch folder, verify, and only then move into the cache: what is there was right once."""
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise JarError("Kafka's jars are fetched by jgo: pip install 'pointsman[embedded]'") from error

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        context = MavenContext(repo_cache=Path(scratch), timeout=60)

        def fetch(jar: Jar) -> None:
            group, artifact, version = jar.coordinates.split(":")
            try:
                path = context.project(group, artifact).at_version(version).artifact().resolve()
            except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
                raise JarError(f"{jar.coordinates} could not be fetched: {error}") from error
            _verify(jar, path)
            path.replace(folder / jar.filename)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch, jars))


def _verify(jar: Jar, path: Path) -> None:
    digest = _sha256(path)
    if digest != jar.sha256:
        raise JarError(f"{path} is not {jar.coordinates} as locked: SHA-256 {digest}, locked {jar.sha256}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """One process fetches, the others wait for it. The lock ends with its holder, however that ends."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
