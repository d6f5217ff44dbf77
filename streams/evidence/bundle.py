"""An alert's evidence as one file: a ZIP of JSON and SQL, with a manifest of SHA-256 sums.

The file's own SHA-256 (the *seal*, what `sha256sum` shows) is what to write down elsewhere: whoever holds it can
tell that not a byte was changed since. Equal contents make equal bytes.
"""

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from streams.evidence.dossier import Dossier
from streams.evidence.explain import Explanation
from streams.notifiers.text import timestamp

FORMAT = 1
MANIFEST = "manifest.json"
_LONGEST = 1 << 30  # of one part, unpacked
_EPOCH = (1980, 1, 1, 0, 0, 0)


class BadEvidence(ValueError):
    """The file is not what was exported; each problem is named."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class Manifest(msgspec.Struct, kw_only=True):
    """What the file holds."""

    format: int
    alert_id: str
    release: str
    exported_at: str
    parts: dict[str, str]  # name -> SHA-256


class Verified(msgspec.Struct, kw_only=True):
    """A file that holds exactly what its manifest says."""

    alert_id: str
    exported_at: str
    release: str
    parts: int
    seal: str


def pack(dossier: Dossier, explanation: Explanation, text: str, release: str) -> bytes:
    """The file."""
    names = [name for name in dossier.__struct_fields__ if name != "queries"]
    files = {f"{name}.json": _json(getattr(dossier, name)) for name in names}
    files["explanation.json"] = _json(explanation)
    files["explanation.txt"] = text.encode() + b"\n"
    for name, query in dossier.queries.items():
        files[f"queries/{name}.sql"] = query["sql"].encode() + b"\n"
        files[f"queries/{name}.parameters.json"] = _json(query["parameters"])
    manifest = Manifest(
        format=FORMAT, alert_id=dossier.alert["alert_id"], release=release,
        exported_at=timestamp(dossier.versions["gathered_at"]),
        parts={name: _sha256(data) for name, data in sorted(files.items())},
    )  # fmt: skip
    return _zip({MANIFEST: _json(manifest), **files})


def verify(data: bytes, seal: str = "") -> Verified:
    """Check a file against its manifest, and against `seal`, where that is known.

    Raises:
        BadEvidence: it is no such file, a part was changed, is missing, or is not in the manifest.
    """
    made = _sha256(data)
    problems = [f"the seal is {made}, not {seal}"] if seal and seal != made else []
    try:
        members, found = _read(data)
        manifest = msgspec.json.decode(found.pop(MANIFEST, b""), type=Manifest)
    except Exception as error:  # bytes of anybody's: zipfile and its decompressors have no errors in common
        raise BadEvidence([*problems, f"not an evidence file, or damaged: {error}"]) from error
    names = Counter(members)
    problems += [f"{name}: is there twice" for name, number in names.items() if number > 1]
    problems += [f"{name}: is not in the manifest" for name in found.keys() - manifest.parts.keys()]
    problems += [f"{name}: is missing" for name in manifest.parts.keys() - found.keys()]
    sums = {name: _sha256(part) for name, part in found.items()}
    problems += [f"{name}: was changed" for name, was in manifest.parts.items() if sums.get(name, was) != was]
    if manifest.format != FORMAT:
        problems.append(f"format {manifest.format}; this release knows {FORMAT}")
    if problems:
        raise BadEvidence(sorted(problems))
    return Verified(
        alert_id=manifest.alert_id, exported_at=manifest.exported_at, release=manifest.release,
        parts=len(manifest.parts), seal=made,
    )  # fmt: skip


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1) + b"\n"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(data: bytes) -> tuple[list[str], dict[str, bytes]]:
    """The members' names, and their contents."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if any(member.file_size > _LONGEST for member in members):
            raise ValueError("a part is too long to be one of ours")
        return archive.namelist(), {member.filename: archive.read(member) for member in members}


def _zip(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()
