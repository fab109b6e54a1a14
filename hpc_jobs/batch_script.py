"""What stands in a job's batch script around its call."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_RESTARTS = 3
KILLED = 137  # 128 + SIGKILL, as a shell tells it
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


def restart_after_a_kill(
    cancelled: Path, cgroups: Path = CGROUPS, own_cgroup: Path = Path("/proc/self/cgroup")
) -> list[str]:
    """Lines that queue a job again whose process was killed, but not one that took too much memory.

    Slurm itself queues again what a node's loss has ended. Of the memory there are three signs, and
    none at all on some clusters: srun's status, the kernel's count in the job's control group (of
    this node), and Slurm's own words in the log.

    Parameters
    ----------
    cancelled : Path
        A file that is there once somebody asked for an end.
    cgroups, own_cgroup : Path
        Where the kernel tells of control groups.
    """
    words = "^slurmstepd: error: .*oom[-_ ]kill|^srun: error: .*Out Of Memory"
    return [
        "status=$?",
        # Slurm's group of the whole job, which counts for all its steps.
        rf"group=$(sed -n 's|^0::\(.*/job_[0-9]*\)/step_.*|\1|p' {shlex.quote(str(own_cgroup))})",
        "out_of_memory() {",
        f'  [ "$status" -eq {OUT_OF_MEMORY} ] && return 0',
        f'  [ "$status" -eq {KILLED} ] || return 1',
        '  [ -n "$group" ] && grep -qs "^oom_kill [1-9]" '
        f'{shlex.quote(str(cgroups))}"$group/memory.events" && return 0',
        f"  [ -f /proc/$$/fd/1 ] && grep -qE '{words}' /proc/$$/fd/1",
        "}",
        "if out_of_memory; then",
        *_told("out of memory: raise memory_gb in the site profile, and start it again"),
        f'elif [ "$status" -eq {KILLED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_RESTARTS} ]'
        f" && [ ! -e {shlex.quote(str(cancelled))} ]; then",
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$status"',
    ]


def _told(words: str) -> list[str]:
    return [f"  echo {shlex.quote(words)} >&2"]
