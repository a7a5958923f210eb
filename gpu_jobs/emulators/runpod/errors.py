"""The error with which a request is refused."""

from collections.abc import Sequence


class ApiError(Exception):
    """The request is answered with `status`, in the form of RFC 9457."""

    def __init__(self, status: int, detail: str, errors: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors
