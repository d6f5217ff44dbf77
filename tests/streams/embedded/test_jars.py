import hashlib
from pathlib import Path

import pytest

from streams.embedded.jars import ROOTS, Jar, JarError, ensure, read_lock

A_JAR = b"PK\x03\x04 what a jar may hold"


def lock_of(folder: Path, content: bytes) -> Path:
    path = folder / "jars.lock"
    path.write_text(f"# a comment\norg.example:tool:1.0 {hashlib.sha256(content).hexdigest()}\n")
    return path


def put(cache: Path, content: bytes) -> Path:
    path = cache / "kafka" / "tool-1.0.jar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_cached_jar_is_used_without_a_network(tmp_path: Path) -> None:
    path = put(tmp_path, A_JAR)
    assert ensure(tmp_path, lock_of(tmp_path, A_JAR)) == [path]


def test_a_tampered_jar_is_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, A_JAR + b"!")
    with pytest.raises(JarError, match=r"tool-1\.0\.jar is not org\.example:tool:1\.0 as locked"):
        ensure(tmp_path, lock_of(tmp_path, A_JAR))


def test_a_truncated_jar_is_refused(tmp_path: Path) -> None:
    put(tmp_path, A_JAR[:-1])
    with pytest.raises(JarError, match="SHA-256"):
        ensure(tmp_path, lock_of(tmp_path, A_JAR))


def test_the_cache_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_CACHE", str(tmp_path))
    path = put(tmp_path, A_JAR)
    assert ensure(lock=lock_of(tmp_path, A_JAR)) == [path]


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Stands where the network would be: jgo's resolver, answering from this dict of file names."""
    from jgo.maven import PythonResolver

    files: dict[str, bytes] = {}

    def download(self: object, artifact: object) -> Path:
        name, path = artifact.filename, artifact.cached_path  # type: ignore[attr-defined]
        if name not in files:
            raise RuntimeError("not found in remote repositories")
        path.parent.mkdir(parents=True)
        path.write_bytes(files[name])
        return Path(path)

    monkeypatch.setattr(PythonResolver, "download", download)
    return files


def test_a_missing_jar_is_fetched_once(tmp_path: Path, repository: dict[str, bytes]) -> None:
    repository["tool-1.0.jar"] = A_JAR
    lock = lock_of(tmp_path, A_JAR)
    [path] = ensure(tmp_path, lock)
    assert path.read_bytes() == A_JAR
    repository.clear()
    assert ensure(tmp_path, lock) == [path]
    assert [entry.name for entry in path.parent.iterdir() if entry.is_dir()] == []


def test_a_download_that_is_not_as_locked_never_enters_the_cache(
    tmp_path: Path, repository: dict[str, bytes]
) -> None:
    repository["tool-1.0.jar"] = b"something else"
    with pytest.raises(JarError, match=r"org\.example:tool:1\.0 as locked"):
        ensure(tmp_path, lock_of(tmp_path, A_JAR))
    assert not (tmp_path / "kafka" / "tool-1.0.jar").exists()


def test_a_jar_that_cannot_be_had_is_named(tmp_path: Path, repository: dict[str, bytes]) -> None:
    with pytest.raises(JarError, match=r"org\.example:tool:1\.0 could not be fetched"):
        ensure(tmp_path, lock_of(tmp_path, A_JAR))


def test_the_lock_holds_kafka_hashes_and_no_addresses() -> None:
    jars = read_lock()
    assert set(ROOTS) <= {jar.coordinates for jar in jars}
    assert len({jar.filename for jar in jars}) == len(jars)
    assert all(len(jar.sha256) == 64 and "/" not in jar.coordinates for jar in jars)


def test_filename_is_the_repositorys() -> None:
    assert Jar("org.apache.kafka:kafka_2.13:4.2.1", "").filename == "kafka_2.13-4.2.1.jar"
