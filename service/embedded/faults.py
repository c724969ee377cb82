"""What can be wrong with a local set-up, each with a code of its own.

`StackError` carries one of the codes below; `foretune up` turns the code into an exit status (`EXIT_STATUS`),
so that scripts can tell a taken port from a full disk without reading English.
"""

from __future__ import annotations

from enum import StrEnum

from foretune.errors import ForetuneError


class StackFault(StrEnum):
    """The things that keep the local stack from running."""

    UNSUPPORTED_PLATFORM = "unsupported_platform"
    WHEELS_MISSING = "wheels_missing"
    FOLDER_NOT_WRITABLE = "folder_not_writable"
    FOLDER_IN_USE = "folder_in_use"
    DISK_FULL = "disk_full"
    PORT_TAKEN = "port_taken"
    BAD_ADDRESS = "bad_address"
    SCHEMA_TOO_NEW = "schema_too_new"
    CLUSTER_UNUSABLE = "cluster_unusable"
    CHILD_FAILED = "child_failed"
    NOT_READY = "not_ready"
    BAD_SETTING = "bad_setting"


EXIT_STATUS: dict[StackFault, int] = {fault: number for number, fault in enumerate(StackFault, start=10)}
"""Exit status of `foretune up` for each fault: 10 and up, in the order of the enumeration."""


class StackError(ForetuneError):
    """The local stack cannot run."""

    code = "stack_error"

    def __init__(self, fault: StackFault, message: str) -> None:
        super().__init__(message, code=fault.value)
        self.fault = fault

    @property
    def exit_status(self) -> int:
        """The status a command ends with when this error stops it."""
        return EXIT_STATUS[self.fault]
