"""Ends of flows and tasks that say in one sentence what happened."""

from typing import TypeVar, cast

from prefect.client.schemas.objects import State

_T = TypeVar("_T")


def end_in(state: State[_T]) -> _T:
    """Return this from a flow or task to end it in `state`.

    A flow's caller gets the state's data, or has it raised if the state is a failure; a task's caller gets the same
    from `task(..., return_state=True).result()`. Unlike an exception that is raised, it leaves no traceback in the log.
    """
    return cast("_T", state)
