"""Cloud Run's replies, generated from the messages of its API: whatever the service sets or leaves out is read."""

import pytest
from google.cloud import run_v2
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Observation, Phase
from gpu_jobs.platforms.cloud_run.jobs import observation

MESSAGES = st.sampled_from(
    ["", "Internal error.", "The configured memory limit was reached.", "The configured timeout was reached.", "new"]
)
COUNTS = st.integers(0, 12)
CONDITIONS = st.lists(
    st.builds(
        lambda message, reason, execution: run_v2.Condition(message=message, reason=reason, execution_reason=execution),
        MESSAGES,
        st.integers(0, 40),
        st.integers(0, 40),
    ),
    max_size=2,
)
"""With reasons that our client's version does not know."""
RESULTS = st.builds(
    lambda code, message, exit_code, signum: run_v2.TaskAttemptResult(
        status=status_pb2.Status(code=code, message=message), exit_code=exit_code, term_signal=signum
    ),
    st.integers(0, 20),
    MESSAGES,
    st.integers(-1, 300),
    st.integers(0, 70),
)
TASKS = st.lists(st.builds(lambda result: run_v2.Task(last_attempt_result=result), RESULTS) | st.builds(run_v2.Task))


@pytest.mark.filterwarnings("ignore:Unrecognized .* enum value")
@settings(max_examples=150, deadline=None)
@given(st.tuples(*[COUNTS] * 5), st.sampled_from([None, 1_800_000_000]), CONDITIONS, TASKS)
def test_every_execution_is_read(counts, over_at, conditions, tasks):
    """Counts may lag behind one another, and tasks may be missing."""
    total, running, succeeded, failed, cancelled = counts
    execution = run_v2.Execution(
        task_count=total,
        running_count=running,
        succeeded_count=succeeded,
        failed_count=failed,
        cancelled_count=cancelled,
        completion_time=over_at and {"seconds": over_at},
        conditions=conditions,
    )

    seen = observation(execution, tasks)

    assert isinstance(seen, Observation)
    assert seen.workers_alive >= 0
    assert seen.phase.is_over is (over_at is not None)
    if seen.failure is Failure.OUT_OF_MEMORY:
        assert any("memory limit" in task.last_attempt_result.status.message for task in tasks)
    assert seen.phase is not Phase.SUCCEEDED or succeeded == total
