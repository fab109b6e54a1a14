"""What stands in a job's batch script around its call."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_jobs import failures

MOST_RESTARTS = 3
KILLED = 137  # 128 + SIGKILL, as a shell tells it
TERMINATED = 143  # 128 + SIGTERM
TOO_LITTLE_MEMORY = "out of memory: raise memory_gb in the site profile, and start it again"
OUT_OF_MEMORY = 253  # as srun tells it, where Slurm watches the memory
CGROUPS = Path("/sys/fs/cgroup")

THREADS = (
    # Numeric libraries would take all processors of the node; srun does not hand this on itself.
    'if [ -n "$SLURM_CPUS_PER_TASK" ]; then',
    '  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    '  export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK" MKL_NUM_THREADS="$SLURM_CPUS_PER_TASK"',
    '  export OPENBLAS_NUM_THREADS="$SLURM_CPUS_PER_TASK"',
    "fi",
)

GO_ON = "set +eu  # whatever the setup has set: what stands after the call is to be reached"


def sbatch_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Further options of sbatch: a flag stands there or not, and a job may be queued again.

    >>> sbatch_options({"exclusive": True, "hold": False})
    {'requeue': True, 'exclusive': True}
    >>> sbatch_options({"requeue": False})
    {'no-requeue': True}
    """
    options = {name.replace("no_requeue", "no-requeue"): asked[name] for name in asked}
    if options.get("no-requeue") or not options.get("requeue", True):
        options |= {"no-requeue": True, "requeue": False}
    else:
        options = {"requeue": True} | options
    return {name: value for name, value in options.items() if value is not False}


def load_modules(names: list[str]) -> list[str]:
    """Lines that load environment modules, or end the job and say what is missing."""
    if not names:
        return []
    lines = [
        # A batch script is no login shell, which would define it.
        "for file in /etc/profile.d/*module*.sh /etc/profile.d/*lmod*.sh"
        ' "$LMOD_PKG/init/bash" "$MODULESHOME/init/bash"; do',
        "  command -v module > /dev/null && break",
        '  [ -r "$file" ] && . "$file"',
        "done",
        "if ! command -v module > /dev/null; then",
        *_told(
            "modules of the site profile: there is no command module on this node; write into "
            "setup what defines it there, and the module load lines after that"
        ),
        "  exit 1",
        "fi",
    ]
    for name in names:
        why = f"modules of the site profile: {name} cannot be loaded on this node (module avail)"
        lines += [f"if ! module load {shlex.quote(name)}; then", *_told(why), "  exit 1", "fi"]
    return lines


def before_the_call(job_folder: Path, outcome: str, *, of_array: bool = False) -> list[str]:
    """Lines that remove how an earlier run has ended, where the job was queued again by hand.

    Before any process begins, since one may fail before it comes to our own code.

    Parameters
    ----------
    outcome : str
        The file that holds it.
    """
    folder = shlex.quote(str(job_folder))
    return [
        'if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then',
        f'  rm -f {folder}/"{_identity(of_array)}"_[0-9]*_result.pkl',
        f"  job={folder}{_part(of_array)}",
        f'  rm -f "$job/{outcome}"',
        "fi",
    ]


def after_the_call(
    job_folder: Path,
    ended: Sequence[str],
    python: str | None = None,
    requeued: bool = True,
    *,
    of_array: bool = False,
    cgroups: Path = CGROUPS,
    own_cgroup: Path = Path("/proc/self/cgroup"),
) -> list[str]:
    """Lines that queue a job again whose process was killed, or write that it failed.

    By a kill is meant SIGKILL, and SIGTERM, which a preemption sends; `scancel` sends that to the
    script too. Slurm itself queues again what a node's loss has ended. One that took too much
    memory is not begun again. Of that there are three signs, and none at all on some clusters:
    srun's status, the kernel's count in the job's control group (of this node), and Slurm's own
    words in the log. Of several processes, a failure of one ends the others by a kill: what the
    first one notes counts, see `failures`.

    Parameters
    ----------
    job_folder : Path
        Of an array, in which a part `k` has its folder `part-k`.
    ended : sequence of str
        Files one of which is there once the job has ended, or somebody asked for it.
    python : str, optional
        As the shell takes it; by default this one.
    requeued : bool
        Whether it may be queued again.
    cgroups, own_cgroup : Path
        Where the kernel tells of control groups.
    """
    words = "^slurmstepd: error: .*oom[-_ ]kill|^srun: error: .*Out Of Memory"
    folder = shlex.quote(str(job_folder))
    not_ended = " && ".join(f'[ ! -e "$job/{name}" ]' for name in ended)
    outcome = f"{python or shlex.quote(sys.executable)} -m hpc_jobs.after_processes"
    return [
        "status=$?",
        f"job={folder}{_part(of_array)}",
        f'id="{_identity(of_array)}"',
        'run="${SLURM_RESTART_COUNT:-0}"',
        # Slurm's group of the whole job, which counts for all its steps.
        rf"group=$(sed -n 's|^0::\(.*/job_[0-9]*\)/step_.*|\1|p' {shlex.quote(str(own_cgroup))})",
        "out_of_memory() {",
        f'  [ "$status" -eq {OUT_OF_MEMORY} ] && return 0',
        f'  [ "$status" -eq {KILLED} ] || return 1',
        '  [ -n "$group" ] && grep -qs "^oom_kill [1-9]" '
        f'{shlex.quote(str(cgroups))}"$group/memory.events" && return 0',
        f"  [ -f /proc/$$/fd/1 ] && grep -qE '{words}' /proc/$$/fd/1",
        "}",
        "killed() {",
        f'  [ -e "$job/{failures.OWN}-$run.json" ] && return 1',
        f'  [ "$status" -eq {KILLED} ] || [ "$status" -eq {TERMINATED} ]'
        f' || [ -e "$job/{failures.OF_ANOTHER}-$run.json" ] || return 1',
        # An error of a process whose call was not even reached. There may be little time.
        f'  compgen -G {folder}/"$id"_"*_result.pkl" > /dev/null || return 0',
        f'  ! {outcome} --kept {folder} "$id"',
        "}",
        "if out_of_memory; then",
        *_told(TOO_LITTLE_MEMORY),
        f'  {outcome} "$job" {shlex.quote(TOO_LITTLE_MEMORY)}',
        f'elif {"true" if requeued else "false"} && killed && [ "$run" -lt {MOST_RESTARTS} ]'
        f" && {not_ended}; then",
        '  scontrol requeue "$id"',
        'elif [ "$status" -ne 0 ]; then',
        f'  {outcome} "$job"',
        "fi",
        'exit "$status"',
    ]


def _identity(of_array: bool) -> str:
    """Of this job: one task of an array has the number of the whole array for its own."""
    return "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if of_array else "$SLURM_JOB_ID"


def _part(of_array: bool) -> str:
    return '/part-$(printf %03d "$SLURM_ARRAY_TASK_ID")' if of_array else ""


def _told(words: str) -> list[str]:
    return [f"  echo {shlex.quote(words)} >&2"]
