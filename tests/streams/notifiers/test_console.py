import io

import pytest

from streams.notifiers.base import RetryLater
from streams.notifiers.console import ConsoleNotifier
from tests.streams.notifiers.alerts import PAYLOADS, alert, hostile


async def test_one_line_per_transition() -> None:
    out = io.StringIO()
    await ConsoleNotifier(out).send([alert(), alert("t2", "resolved")])
    fired, resolved = out.getvalue().splitlines()
    assert fired.startswith("2026-03-01T12:16:00.000Z firing   critical known_trigger trigger_id=t1 (3 findings")
    assert fired.endswith("id of t1")
    assert "resolved critical known_trigger trigger_id=t2" in resolved


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_what_attackers_name_themselves_stays_on_its_line(payload: str) -> None:
    out = io.StringIO()
    await ConsoleNotifier(out).send([hostile(payload)])
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    assert payload not in text


async def test_colour_on_a_terminal_comes_from_us_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    plain, coloured = io.StringIO(), io.StringIO()
    await ConsoleNotifier(plain).send([alert()])
    await ConsoleNotifier(coloured).send([hostile("\x1b[31mred")])
    assert plain.getvalue().count("\x1b") == coloured.getvalue().count("\x1b") == 2
    assert "\x1b[31m" not in coloured.getvalue()


async def test_a_broken_output_is_tried_again_later() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(RetryLater):
        await ConsoleNotifier(Broken()).send([alert()])
