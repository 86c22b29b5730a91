"""Whose fault it was and what to do next: every error a user sees is one of these."""


class DevmeshError(Exception):
    """Something the user can mend. `hint` is the exact next command or edit, and there always is one; exit status 1."""

    exit_status = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DevmeshError):
    """The command line itself is wrong; exit status 2."""

    exit_status = 2


class InternalError(DevmeshError):
    """Ours to mend; exit status 70 (sysexits EX_SOFTWARE)."""

    exit_status = 70
