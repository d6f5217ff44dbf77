"""What figures were measured on: they say little without it."""

import os
import platform
from importlib.metadata import version

import msgspec

_PACKAGES = ("faust-streaming", "aiokafka", "numpy", "faiss-cpu", "river", "chdb", "sentence-transformers", "torch")


class Machine(msgspec.Struct):
    """What it ran on."""

    cpus: int
    python: str
    load_before: float  # of the minute before: others on the machine make figures smaller
    real_prompts: bool
    versions: dict[str, str]


def machine(load_before: float, real_prompts: bool) -> Machine:
    """What this process runs on."""
    return Machine(
        cpus=os.cpu_count() or 1,
        python=platform.python_version(),
        load_before=round(load_before, 2),
        real_prompts=real_prompts,
        versions={name: version(name) for name in _PACKAGES},
    )
