"""Failures as exceptions: a status, which says what a caller may do, and a sentence for the user."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """gRPC's codes and meanings."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def of(cls, code: int) -> Status:
        """A code that this version does not know is UNKNOWN."""
        return cls(code) if 0 <= code <= cls.UNAUTHENTICATED else cls.UNKNOWN


class AssayError(Exception):
    """Any failure of a call, made by the server or on this side."""

    def __init__(self, status: Status, sentence: str):
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.status.name}: {self.sentence}"
