"""Whether anybody answers: tickets are drawn, and for long none was answered."""

import msgspec


class Silence(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Stream times in milliseconds; 0: no ticket waits."""

    asked_ms: int = 0  # of the first ticket after the last answer
    told_ms: int = 0  # when it was last said
    open_ms: int = 0  # until when the last ticket can be answered

    @property
    def waits(self) -> bool:
        """Whether a ticket waits for the first answer after it."""
        return self.asked_ms > 0

    def on_ticket(self, now_ms: int, expires_ms: int) -> None:
        """A ticket was drawn that nobody has answered yet."""
        self.asked_ms, self.open_ms = self.asked_ms or now_ms, max(self.open_ms, expires_ms)

    def on_answer(self) -> None:
        """A ticket was answered, by whomever it may be."""
        self.asked_ms = self.told_ms = self.open_ms = 0

    def due(self, now_ms: int, limit_ms: int) -> bool:
        """Whether it has to be said now: once in each `limit_ms` of silence."""
        if now_ms >= self.open_ms:  # nothing is left to be answered
            self.on_answer()
        if not self.waits or now_ms - max(self.asked_ms, self.told_ms) < limit_ms:
            return False
        self.told_ms = now_ms
        return True
