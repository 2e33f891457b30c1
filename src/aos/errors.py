"""The one error taxonomy of AOS, and the table that maps it to exit codes and JSON-RPC.

    AosError
    ├── InvalidArgument      the input is wrong whatever the state of the system
    ├── NotFound             the thing named does not exist
    ├── AlreadyExists        the name or id is taken
    ├── FailedPrecondition   the system is not in a state where this can work (a tool is missing, a wrong state)
    ├── PermissionDenied     known caller, not allowed
    ├── Unauthenticated      unknown caller, or bad credentials
    ├── ResourceExhausted    a limit, a quota or a disk is full
    ├── Conflict             somebody else changed it meanwhile
    ├── Aborted              stopped half-way on request (Ctrl-C, cancellation, a failing step)
    ├── Unavailable          try again: a daemon, a registry, a network is not there
    ├── NotImplemented       this backend or version lacks it; the message names the alternative
    ├── DataLoss             stored bytes are not what they must be
    └── Internal             a defect of ours

Every error says what, where and why in its message, what to do in `hint`, and carries a stable kebab-case
`code` that programs may test. This module is on the path of every command: it imports nothing.
"""

from __future__ import annotations

__all__ = [
    "KINDS",
    "Aborted",
    "AlreadyExists",
    "AosError",
    "Conflict",
    "DataLoss",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "NotImplemented",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "from_wire",
]


class AosError(Exception):
    """An error a person or a program can act on.

    `message` says what, where and why; `code` is stable; `hint` says what to do; `subject` holds the names
    and values the message speaks of (JSON-representable).
    """

    kind = "Internal"
    exit_code = 1
    rpc_code = -32000
    default_code = "internal"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, **subject: object
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.subject = subject

    def to_wire(self) -> dict[str, object]:
        """The `error` member of a JSON-RPC 2.0 response."""
        data: dict[str, object] = {"kind": self.kind, "code": self.code}
        if self.hint:
            data["hint"] = self.hint
        if self.subject:
            data["subject"] = self.subject
        return {"code": self.rpc_code, "message": self.message, "data": data}


class Internal(AosError):
    pass


class InvalidArgument(AosError):
    kind, exit_code, rpc_code, default_code = "InvalidArgument", 2, -32001, "invalid-argument"


class NotFound(AosError):
    kind, exit_code, rpc_code, default_code = "NotFound", 3, -32002, "not-found"


class AlreadyExists(AosError):
    kind, exit_code, rpc_code, default_code = "AlreadyExists", 4, -32003, "already-exists"


class FailedPrecondition(AosError):
    kind, exit_code, rpc_code, default_code = "FailedPrecondition", 5, -32004, "failed-precondition"


class PermissionDenied(AosError):
    kind, exit_code, rpc_code, default_code = "PermissionDenied", 6, -32005, "permission-denied"


class Unauthenticated(AosError):
    kind, exit_code, rpc_code, default_code = "Unauthenticated", 7, -32006, "unauthenticated"


class ResourceExhausted(AosError):
    kind, exit_code, rpc_code, default_code = "ResourceExhausted", 8, -32007, "resource-exhausted"


class Conflict(AosError):
    kind, exit_code, rpc_code, default_code = "Conflict", 9, -32008, "conflict"


class Aborted(AosError):
    kind, exit_code, rpc_code, default_code = "Aborted", 10, -32009, "aborted"


class Unavailable(AosError):
    kind, exit_code, rpc_code, default_code = "Unavailable", 11, -32010, "unavailable"


class NotImplemented(AosError):
    kind, exit_code, rpc_code, default_code = "NotImplemented", 12, -32011, "not-implemented"


class DataLoss(AosError):
    kind, exit_code, rpc_code, default_code = "DataLoss", 13, -32012, "data-loss"


KINDS: dict[str, type[AosError]] = {
    error.kind: error
    for error in (
        Internal,
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        Conflict,
        Aborted,
        Unavailable,
        NotImplemented,
        DataLoss,
    )
}


def from_wire(error: dict[str, object]) -> AosError:
    """Rebuild the error that `to_wire` wrote; an unknown kind becomes `Internal`."""
    data = error.get("data")
    fields: dict[str, object] = data if isinstance(data, dict) else {}
    subject = fields.get("subject")
    kind = KINDS.get(str(fields.get("kind")), Internal)
    rebuilt = kind(str(error.get("message")), code=str(fields.get("code") or kind.default_code))
    rebuilt.hint = str(fields["hint"]) if fields.get("hint") else None
    rebuilt.subject = subject if isinstance(subject, dict) else {}
    return rebuilt
