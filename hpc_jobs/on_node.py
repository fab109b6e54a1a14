"""A job's call as each of its processes makes it on a node of the cluster."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

from hpc_jobs import slurm
from hpc_jobs.scratch import own_scratch


class OnNode:
    """A call in a scratch folder of its own, with submitit's `checkpoint`.

    Parameters
    ----------
    call : callable
        Without arguments, and with a `checkpoint`.
    requeued : bool
        Whether Slurm may queue it again.
    """

    def __init__(self, call: Any, requeued: bool) -> None:
        self.call = call
        self.requeued = requeued

    def __call__(self) -> Any:
        """Make the call."""
        _note_time_limit()
        with own_scratch():
            return self.call()

    def checkpoint(self) -> Any:
        """The same once more; None if it shall not be."""
        from submitit.helpers import DelayedSubmission

        again = self.call.checkpoint()
        return DelayedSubmission(self) if self.requeued and again is not None else None


def _note_time_limit() -> None:
    """Where the site profile leaves the time to Slurm, submitit must still know it.

    By it submitit tells a job whose time is up, which begins again some times only, from one that
    is pre-empted. Where Slurm does not say it, each end counts as one whose time is up.
    """
    handler = getattr(signal.getsignal(signal.SIGUSR2), "__self__", None)
    submission = getattr(handler, "_delayed", None)
    # Noted in a run before this one, Slurm may not have answered then: asked again.
    if submission is None or submission._timeout_min not in (None, 0, math.inf):
        return
    submission._timeout_min = math.inf  # until Slurm has answered
    # Only the first process queues the job again.
    first = os.environ.get("SLURM_PROCID", "0") == "0"
    limit = slurm.time_limit_min(os.environ["SLURM_JOB_ID"]) if first else math.inf
    submission._timeout_min = 0 if limit is None else limit
