"""submitit's local executor, whose jobs have a session of their own, and an environment to suit.

submitit starts them in the session of the caller, where Ctrl-C, or the end of a web server's
process group, would take them along.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from submitit.local.local import LocalExecutor, LocalJob

from hpc_jobs.processors import processors
from hpc_jobs.progress import JOB_FOLDER_VARIABLE

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class OwnSessionExecutor(LocalExecutor):
    """Takes the further parameter `threads`; `timeout_min` must be given."""

    def _submit_command(self, command: str) -> LocalJob[Any]:
        with open(self.folder / "controller.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "submitit.local._local", str(self.folder)],
                env=_environment(command, self.parameters),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return LocalJob(self.folder, str(process.pid), process=process)


def _environment(command: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a local job: the caller's, without what belongs to a job it may be."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SUBMITIT_") and name != JOB_FOLDER_VARIABLE
    }
    # Who says how many threads programs have, as on a shared machine, means jobs too.
    threads = parameters["threads"] or environment.get("OMP_NUM_THREADS") or processors()
    environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    # OpenMP's threads spin while they wait for each other. Beside a busy server that is most of
    # the work: training steps took three times the processor time, and four times as long.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment | {
        "SUBMITIT_EXECUTOR": "local",
        "SUBMITIT_LOCAL_COMMAND": command,
        "SUBMITIT_LOCAL_NTASKS": "1",
        "SUBMITIT_LOCAL_NODEID": "0",
        "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
        "SUBMITIT_LOCAL_TIMEOUT_S": str(int(60 * parameters["timeout_min"])),
        "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
        "SUBMITIT_LOCAL_WITH_SHELL": "",
        "SUBMITIT_STDERR_TO_STDOUT": "1",
    }
