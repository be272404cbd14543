"""What the errors of the cluster know, and what they say."""

from __future__ import annotations

import pytest

import pyipc
from pyipc.cluster import errors
from pyipc.cluster.errors import (
    ClusterError,
    JobCancelled,
    JobFailed,
    ReloadFailed,
    UnknownWorker,
    WorkerFailed,
)


@pytest.mark.parametrize(
    ("error", "text", "attributes"),
    [
        (
            JobFailed("resize", 1, "w1"),
            "the job 'resize' was started once and lost its worker each time",
            {"event": "resize", "attempts": 1, "worker": "w1"},
        ),
        (JobFailed("resize", 3, "w1"), "was started 3 times and lost its worker each time, the last one was 'w1'", {}),
        (JobCancelled("resize"), "the job 'resize' was cancelled", {"event": "resize"}),
        (
            WorkerFailed("w1", "worker 'w1' ended before it was ready", code=1),
            "worker 'w1' ended before it was ready",
            {"worker": "w1", "code": 1, "signal": None},
        ),
        (WorkerFailed("w1", "was ended", signal=9), "was ended", {"code": None, "signal": 9}),
        (UnknownWorker("w9"), "there is no worker 'w9'", {"id": "w9"}),
    ],
)
def test_what_they_know_and_say(error: ClusterError, text: str, attributes: dict[str, object]) -> None:
    assert isinstance(error, pyipc.IPCError)
    assert text in str(error)
    assert {name: getattr(error, name) for name in attributes} == attributes


def test_a_reload_that_failed_says_why() -> None:
    reasons = {"w1": "it exited with code 1", "w2": "it was not ready within 5 s"}
    error = ReloadFailed(reasons)
    assert error.reasons == reasons
    assert str(error) == (
        "the reload failed, and the workers from before go on "
        "(worker 'w1': it exited with code 1; worker 'w2': it was not ready within 5 s)"
    )


def test_what_is_wrong_with_several_workers_is_said_once() -> None:
    reasons = {"w1": "worker 'w1' ended with code 1", "w2": "worker 'w2' ended with code 1", "w3": "it hangs"}
    assert "(workers 'w1', 'w2': ended with code 1; worker 'w3': it hangs)" in str(ReloadFailed(reasons))


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn = errors.__doc__ or ""
    assert [name for name in errors.__all__ if name[0].isupper() and name not in drawn] == []
