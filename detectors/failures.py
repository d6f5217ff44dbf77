"""What the log may say of an exception that a detector raised: its text may quote the prompt it was raised for."""

import traceback
from pathlib import PurePath


def where(error: BaseException) -> str:
    """The exception's type and frames, innermost first: `KeyError at text.py:12 fold, panel.py:117 facts`."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
    return f"{type(error).__name__} at {', '.join(places)}"
