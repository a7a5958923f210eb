"""What a request is refused with."""

from collections.abc import Sequence


class ApiError(Exception):
    """Answered with `status`, in the form of RFC 9457."""

    def __init__(self, status: int, detail: str, errors: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors
