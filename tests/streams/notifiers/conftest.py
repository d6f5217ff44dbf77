from collections.abc import AsyncIterator

import pytest

from tests.streams.notifiers.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started
