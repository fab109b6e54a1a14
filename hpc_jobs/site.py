"""How this site runs jobs: here or on Slurm, and with what. One TOML file.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp(), "site.toml")
>>> _ = path.write_text('cluster = "slurm"\\ntime = "12:00"\\n[pretrain]\\ngpus = 1')
>>> site = read_site(path, ["pretrain", "predict"])
>>> site.options("pretrain")["parameters"]["gpus_per_node"]
1
>>> "gpus_per_node" in site.options("predict")["parameters"]
False
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from hpc_jobs.batch_script import load_modules
from hpc_jobs.scratch import SCRATCH_VARIABLE

SITE_VARIABLE = "PLANKTRAIT_SITE"
SITE_FILE = "planktrait-site.toml"
Cluster = Literal["local", "slurm"]


class SiteError(ValueError):
    """A site profile that cannot be used; the message names the file, the entry and the remedy."""


def _minutes(text: Any) -> Any:
    """Of Slurm's own ways to write a duration: MINUTES, HH:MM, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.

    As Slurm's, but for two numbers with a colon, which are hours and minutes here.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(text))
    if found is None:
        raise ValueError("give minutes, or HH:MM, HH:MM:SS, D-HH:MM:SS")
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    if days is None and second is None:
        return first
    return (days or 0) * 1440 + (first or 0) * 60 + (second or 0) + bool(third)


class Settings(BaseModel):
    """What a job asks for; an entry that is missing is left to Slurm's own default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cluster: Cluster = Field(default="local", description="where jobs run")
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: Annotated[int | None, BeforeValidator(_minutes), Field(gt=0)] = None
    nodes: int | None = Field(default=None, gt=0, description="of a job of several processes")
    tasks_per_node: int | None = Field(default=None, gt=0, description="processes a node")
    gpus: int | None = Field(default=None, ge=0, description="a node")
    cpus: int | None = Field(default=None, gt=0, description="a task")
    memory_gb: float | None = Field(default=None, gt=0, description="a node")
    at_once: int | None = Field(
        default=None, gt=0, description="tasks of an array that run together"
    )
    modules: list[str] | None = None
    setup: list[str] | None = Field(default=None, description="lines of shell before the job")
    environment: dict[str, str] | None = None
    python: str | list[str] | None = Field(
        default=None, description="the interpreter, as the nodes see it; or the words of a command"
    )
    scratch: str | None = Field(default=None, description="a fast folder of each node")
    sbatch: dict[str, str | int | bool] | None = Field(
        default=None, description="more of sbatch's options"
    )

    def parameters(self) -> dict[str, Any]:
        """For submitit's executor."""
        named = {
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
            "timeout_min": self.time,
            "nodes": self.nodes,
            "tasks_per_node": self.tasks_per_node,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory_gb,
            "slurm_array_parallelism": self.at_once,
            "slurm_python": self._python(),
            "slurm_additional_parameters": self.sbatch,
            "slurm_setup": self._lines() or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _python(self) -> str | None:
        """As the shell takes it."""
        words = [self.python] if isinstance(self.python, str) else self.python
        return None if words is None else shlex.join(words)

    def processes_entry(self) -> str | None:
        """The entry that asks for more than one process, if one does."""
        for name in ("nodes", "tasks_per_node"):
            if (getattr(self, name) or 1) > 1:
                return name
        for name in self.sbatch or {}:
            if name.replace("_", "-") in {"nodes", "ntasks", "ntasks-per-node"}:
                return f"sbatch.{name}"
        return None

    def _lines(self) -> list[str]:
        """Of shell before the job: what is loaded first, others may build on."""
        lines = load_modules(self.modules or [])
        lines += [
            f"export {name}={shlex.quote(value)}"
            for name, value in (self.environment or {}).items()
        ]
        if self.scratch is not None:
            # Between double quotes: a site writes "/scratch/$USER". Each node makes it itself.
            lines.append(f'export {SCRATCH_VARIABLE}="{self.scratch}"')
        return lines + list(self.setup or ())


class Site(BaseModel):
    """A site profile: settings for all jobs, and for kinds of jobs what is different there."""

    model_config = ConfigDict(frozen=True)

    common: Settings = Settings()
    kinds: Mapping[str, Settings] = {}

    def settings(self, kind: str) -> Settings:
        """What jobs of a kind ask for."""
        own = self.kinds.get(kind)
        changes = {} if own is None else own.model_dump(exclude_unset=True)
        return self.common.model_copy(update=changes)

    def options(self, kind: str, cluster: str | None = None) -> dict[str, Any]:
        """`executor` and `parameters` for `hpc_jobs.submit`.

        Parameters
        ----------
        kind : str
        cluster : "local" or "slurm", optional
            Instead of what the profile says.
        """
        settings = self.settings(kind)
        if (cluster or settings.cluster) != "slurm":
            return {"executor": "local"}
        return {"executor": "slurm", "parameters": settings.parameters()}


def find_site(*places: Path | str | None) -> Path | None:
    """The profile to use: `$PLANKTRAIT_SITE`, else the first of some files that is there.

    Raises
    ------
    SiteError
        The variable names a file that is not there.
    """
    named = os.environ.get(SITE_VARIABLE)
    if named:
        if not Path(named).expanduser().is_file():
            raise SiteError(f"{SITE_VARIABLE}={named}: there is no such file")
        return Path(named).expanduser()
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def read_site(
    path: Path | str | None, kinds: Collection[str], of_processes: Collection[str] = ()
) -> Site:
    """Read a profile; None is one in which every job runs here.

    Parameters
    ----------
    path : path or None
    kinds : collection of str
        The sections that it may have.
    of_processes : collection of str
        Those of them whose work several processes of a job share; any other would be done by each.

    Raises
    ------
    SiteError
    """
    if path is None:
        return Site()
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SiteError(f"site profile {path} cannot be read: {error}") from error
    sections: dict[str, Any] = dict.fromkeys(kinds, (Settings | None, None))
    whole = create_model("whole", __base__=Settings, **sections)
    try:
        read = whole.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_told(problem, kinds) for problem in error.errors())
        raise SiteError(f"site profile {path}: {problems}") from error
    own = {kind: getattr(read, kind) for kind in kinds if getattr(read, kind) is not None}
    common = Settings.model_construct(
        _fields_set=read.model_fields_set & set(Settings.model_fields),
        **{name: getattr(read, name) for name in Settings.model_fields},
    )
    for section, settings in [("", common), *own.items()]:
        entry = settings.processes_entry()
        if entry is not None and section not in of_processes:
            where = " or ".join(f"[{kind}]" for kind in of_processes) or "no section"
            at = f"[{section}] {entry}" if section else f"{entry} above the sections"
            raise SiteError(
                f"site profile {path}: {at}: each process would do the whole work of a job; only "
                f"{where} shares it, so write it there"
            )
    return Site(common=common, kinds=own)


def _told(problem: Any, kinds: Collection[str]) -> str:
    entry = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields)
        return f"{entry} is not known: entries are {known}; sections are {', '.join(kinds)}"
    return f"{entry}: {problem['msg'].removeprefix('Value error, ')} (not {problem['input']!r})"
