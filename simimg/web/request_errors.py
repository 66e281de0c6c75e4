"""What the server says no to: an HTTP status and a sentence for people."""

from __future__ import annotations

__all__ = ["RequestError"]


class RequestError(Exception):
    """A request that is not answered: `status`, 4xx, and a sentence that says what to do."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
