"""The closed list of error codes of an image, the codes that are retried, and the errors of runs."""

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
"""Errors that may pass within seconds: retried within the task, with backoff."""

RETRIED_NEXT_RUN = TRANSIENT | {
    ErrorCode.SOURCE_NOT_FOUND,
    ErrorCode.SOURCE_DENIED,
    ErrorCode.WRITE_NO_SPACE,
    ErrorCode.WRITE_DENIED,
    ErrorCode.WRITE_PATH_TOO_LONG,
}
"""Errors that may pass by the next run although the image is unchanged (permissions granted, a disk emptied)."""


class ImageError(Exception):
    """One image could not be processed; it becomes a failed row, and the run goes on.

    Args:
        code: the error code.
        message: what was wrong with the image, without local paths; cut to `MAX_MESSAGE_LENGTH`.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message[:MAX_MESSAGE_LENGTH])
        self.code = code

    @property
    def message(self) -> str:
        """What was wrong with the image."""
        return str(self.args[0])


def as_image_error(error: Exception, code: ErrorCode) -> ImageError:
    """Return an error as an `ImageError`: unchanged if it is one, `decode.memory` for a `MemoryError`, else `code`."""
    if isinstance(error, ImageError):
        return error
    return ImageError(ErrorCode.DECODE_MEMORY if isinstance(error, MemoryError) else code, describe_unexpected(error))


def describe_unexpected(error: Exception) -> str:
    """Return the message about an image for an exception that is no `ImageError`."""
    return "there was not enough memory" if isinstance(error, MemoryError) else f"unexpected {type(error).__name__}"


class DarkroomError(Exception):
    """A run cannot go on; the message says what is wrong, where, and what to do."""


class SettingsError(DarkroomError):
    """A setting, or the file or folder that it names, is wrong; nothing was started."""


class InvalidSettingError(SettingsError):
    """A setting has a wrong name or value; the message says what to give instead."""


class DamagedError(DarkroomError):
    """A file of the destination is damaged; the message names a remedy."""

    def __init__(self, file: str, reason: str, remedy: str) -> None:
        super().__init__(file, reason, remedy)  # in args, by which exceptions are pickled

    def __str__(self) -> str:
        return f"{self.args[0]} is damaged ({self.args[1]}). {self.args[2]}"


class GuardError(DarkroomError):
    """A guard stopped the run before anything was destroyed; the message says how to override it."""


class DestinationError(DarkroomError):
    """The destination can't be written to any more; what is finished is kept.

    Args:
        destination: the location with the problem.
        reason: the problem, as a clause.
        remedy: what to do about it, as a clause.
    """

    def __init__(self, destination: str, reason: str, remedy: str) -> None:
        super().__init__(destination, reason, remedy)  # in args, by which exceptions are pickled

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
    """Another run holds the destination, so that this one did nothing."""
