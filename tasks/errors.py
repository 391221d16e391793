"""The closed list of what can go wrong with one image, and which of it is worth another try."""

from __future__ import annotations

from enum import StrEnum

MAX_MESSAGE_LENGTH = 300


class ErrorCode(StrEnum):
    """Why an image has no output. The part before the dot is the stage at which it failed."""

    SOURCE_NOT_FOUND = "source.not_found"
    SOURCE_DENIED = "source.denied"
    SOURCE_TIMEOUT = "source.timeout"
    SOURCE_THROTTLED = "source.throttled"
    SOURCE_CHANGED = "source.changed"
    SOURCE_EMPTY = "source.empty"
    SOURCE_FAILED = "source.failed"
    DECODE_UNKNOWN_FORMAT = "decode.unknown_format"
    DECODE_UNSUPPORTED = "decode.unsupported"
    DECODE_TRUNCATED = "decode.truncated"
    DECODE_CORRUPT = "decode.corrupt"
    DECODE_TOO_MANY_PIXELS = "decode.too_many_pixels"
    DECODE_TIMEOUT = "decode.timeout"
    DECODE_CRASH = "decode.crash"
    DECODE_MEMORY = "decode.memory"
    ENCODE_FAILED = "encode.failed"
    WRITE_NO_SPACE = "write.no_space"
    WRITE_DENIED = "write.denied"
    WRITE_PATH_TOO_LONG = "write.path_too_long"
    WRITE_FAILED = "write.failed"

    @property
    def stage(self) -> str:
        """The stage that failed: `source`, `decode`, `encode` or `write`."""
        return self.value.partition(".")[0]


TRANSIENT = frozenset(
    {
        ErrorCode.SOURCE_TIMEOUT,
        ErrorCode.SOURCE_THROTTLED,
        ErrorCode.SOURCE_CHANGED,
        ErrorCode.SOURCE_FAILED,
        ErrorCode.WRITE_FAILED,
    }
)
"""May pass within seconds: tried again inside the task, with backoff."""

RETRIED_NEXT_RUN = TRANSIENT | {
    ErrorCode.SOURCE_NOT_FOUND,
    ErrorCode.SOURCE_DENIED,
    ErrorCode.WRITE_NO_SPACE,
    ErrorCode.WRITE_DENIED,
    ErrorCode.WRITE_PATH_TOO_LONG,
}
"""May pass by the next run without the image's bytes changing (permissions granted, a disk emptied, a folder moved)."""


class ImageError(Exception):
    """One image could not be processed; it becomes a failed row and nothing else stops.

    Args:
        code: which of the closed list.
        message: what was wrong with the image, without any local path; cut to `MAX_MESSAGE_LENGTH`.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message[:MAX_MESSAGE_LENGTH])
        self.code = code

    @property
    def message(self) -> str:
        """What was wrong with the image."""
        return str(self.args[0])


def as_image_error(error: Exception, code: ErrorCode) -> ImageError:
    """Return what has gone wrong with an image as an `ImageError`; `code` is for errors of any other type."""
    if isinstance(error, ImageError):
        return error
    return ImageError(ErrorCode.DECODE_MEMORY if isinstance(error, MemoryError) else code, describe_unexpected(error))


def describe_unexpected(error: Exception) -> str:
    """Return the message about an image for an exception that has no type of ours."""
    return "there was not enough memory" if isinstance(error, MemoryError) else f"unexpected {type(error).__name__}"


class DarkroomError(Exception):
    """A run cannot go on; the message says what was found, where, and what to do about it."""


class SettingsError(DarkroomError):
    """A setting, or what it points at, is wrong; nothing was started."""


class InvalidSettingError(SettingsError):
    """A setting has a value that it can't have, or a name that there is not; says what to give instead."""


class DamagedError(DarkroomError):
    """A file of the destination is not what was written; the message names a remedy."""

    def __init__(self, file: str, reason: str, remedy: str) -> None:
        super().__init__(file, reason, remedy)  # by which it can be sent from a worker

    def __str__(self) -> str:
        return f"{self.args[0]} is damaged ({self.args[1]}). {self.args[2]}"


class GuardError(DarkroomError):
    """A guard stopped the run before anything was destroyed; the message says how to override it."""


class DestinationError(DarkroomError):
    """The destination can't be written to any more; what is finished is kept.

    Args:
        destination: the location that a user has to look at.
        reason: what was wrong, as a clause.
        remedy: what to do about it, as a clause.
    """

    def __init__(self, destination: str, reason: str, remedy: str) -> None:
        super().__init__(destination, reason, remedy)  # by which it can be sent from a worker

    def __str__(self) -> str:
        destination, reason, remedy = self.args
        return (
            f"{destination} can't be written to: {reason}. {remedy}; what is finished is kept, and the same command "
            "goes on from there."
        )


class ClusterError(DarkroomError):
    """The Dask cluster can't be reached, or was lost."""


class LeaseError(DarkroomError):
    """Another run holds the destination."""


class InUseError(LeaseError):
    """Another run is at work on the destination, so that this one did nothing."""
