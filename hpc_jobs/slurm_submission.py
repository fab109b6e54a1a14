"""Handing calls to Slurm: what sbatch is asked for, and what its batch script does around them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_jobs.batch_script import (
    GO_ON,
    THREADS,
    after_the_call,
    before_the_call,
    sbatch_options,
)
from hpc_jobs.environment import environment
from hpc_jobs.on_node import OnNode
from hpc_jobs.scratch import SCRATCH_VARIABLE
from hpc_jobs.slurm import SlurmError

MOST_TIMEOUTS = 3
# Of a job within which this process may run: what it submits has nothing to do with it.
_OF_A_JOB = re.compile("(SLURMD?|SRUN|SUBMITIT)_(?!CONF$)")


def submit_calls(
    calls: Sequence[Any],
    folder: Path,
    outcome: str,
    cancelled: str,
    name: str,
    parameters: dict[str, Any],
) -> list[tuple[str, str]]:
    """Queue calls, several of them as an array.

    Parameters
    ----------
    calls : sequence
        What submitit pickles; each takes no arguments.
    folder : Path
        Of the job, for pickles, results and logs; the nodes must see it.
    outcome, cancelled : str
        Files one of which is in the folder of the job, or of the part of an array, once it has
        ended or somebody asked for it: then nothing is queued again.
    parameters : dict
        For submitit's `AutoExecutor`, and `slurm_python`. Without `timeout_min`, the time is left
        to Slurm.

    Returns
    -------
    list of (str, str)
        Slurm's id and the name of the log, one a call.

    Raises
    ------
    SlurmError
    """
    import submitit

    parameters = dict(parameters)
    python = parameters.pop("slurm_python", None)
    options = sbatch_options(parameters.get("slurm_additional_parameters") or {})
    requeued = "requeue" in options
    parameters["slurm_additional_parameters"] = options
    of_array = len(calls) > 1
    parameters["slurm_setup"] = [
        *before_the_call(folder, outcome, of_array=of_array),
        *THREADS,
        *(parameters.get("slurm_setup") or ()),
        GO_ON,
    ]
    parameters["slurm_teardown"] = after_the_call(
        folder, (cancelled, outcome), python, requeued, of_array=of_array
    )
    # Distributed work waits for ever for a process that is gone.
    parameters["slurm_srun_args"] = [
        "--kill-on-bad-exit=1",
        *(parameters.get("slurm_srun_args") or ()),
    ]
    try:
        with _not_within_a_job():
            executor = submitit.AutoExecutor(
                folder=folder,
                cluster="slurm",
                slurm_python=python,
                slurm_max_num_timeout=MOST_TIMEOUTS if requeued else 0,
            )
            executor.update_parameters(name=name, stderr_to_stdout=True, **parameters)
            if not {"timeout_min", "slurm_time"} & set(parameters):
                # It would ask for five minutes, and takes no None for "do not ask" itself.
                executor._executor.update_parameters(time=None)
            with executor.batch():
                jobs = [executor.submit(OnNode(call, requeued)) for call in calls]
            return [(job.job_id, job.paths.stdout.name) for job in jobs]
    except (submitit.core.utils.FailedJobError, RuntimeError, OSError) as error:
        said = str(error).strip().splitlines()
        raise SlurmError(f"Slurm did not take the job: {said[-1] if said else error!r}") from error


@contextmanager
def _not_within_a_job() -> Iterator[None]:
    """Hide the variables of a Slurm job that this process may be in; a follow-up is no part of it.

    Not submitit's `clean_env`, which takes SLURM_CONF along, by which the commands find Slurm.
    """
    names = [name for name in os.environ if _OF_A_JOB.match(name)] + [SCRATCH_VARIABLE]
    if os.environ.get("TMPDIR") == os.environ.get(SCRATCH_VARIABLE):
        names.append("TMPDIR")
    with environment(dict.fromkeys(names)):
        yield
