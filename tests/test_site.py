"""The site profile: what it asks Slurm for, what it refuses, and where it is found."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hpc_jobs import SiteError, find_site, read_site
from hpc_jobs.batch_script import sbatch_options
from hpc_jobs.command_line import read_part
from label_studio_config.home import Home
from label_studio_config.serve_settings import planned_settings
from ml_backend.site_jobs import KINDS, OF_PROCESSES
from planktrait import go_on_with_interrupted

EXAMPLE = Path(__file__).parent.parent / "examples" / "planktrait-site.toml"


def read(folder: Path, text: str) -> Any:
    path = folder / "site.toml"
    path.write_text(text)
    return read_site(path, KINDS, OF_PROCESSES)


def test_without_a_profile_jobs_run_here() -> None:
    assert read_site(None, KINDS).options("train") == {"executor": "local"}
    assert read_site(None, KINDS).options("train", "slurm")["executor"] == "slurm"


def test_a_section_changes_what_it_names(tmp_path: Path) -> None:
    site = read(
        tmp_path,
        'cluster = "slurm"\npartition = "gpu"\ntime = "1-02:30"\ngpus = 1\nmodules = ["cuda/12"]\n'
        'scratch = "/scratch/$USER"\n'
        '[predict]\ngpus = 0\npartition = "cpu"\nmemory_gb = 16\nat_once = 4\n'
        '[push]\ncluster = "local"\n',
    )
    train, predict = (site.options(kind)["parameters"] for kind in ("train", "predict"))
    assert train["timeout_min"] == 26 * 60 + 30
    assert (train["slurm_partition"], train["gpus_per_node"]) == ("gpu", 1)
    assert "if ! module load cuda/12; then" in train["slurm_setup"]
    assert train["slurm_setup"][-1] == 'export PLANKTRAIT_SCRATCH="/scratch/$USER"'
    assert (predict["slurm_partition"], predict["mem_gb"]) == ("cpu", 16)
    assert "gpus_per_node" not in predict
    assert predict["slurm_array_parallelism"] == 4
    assert site.options("push") == {"executor": "local"}
    assert site.options("predict", "local") == {"executor": "local"}


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ('"90"', 90), ('"02:30"', 150), ('"00:00:30"', 1), ('"2-00"', 2880)],
)
def test_times(tmp_path: Path, text: str, minutes: int) -> None:
    site = read(tmp_path, f'cluster = "slurm"\ntime = {text}')
    assert site.options("train")["parameters"]["timeout_min"] == minutes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu = 1", "gpu is not known: entries are cluster, partition"),
        ("[trian]\ngpus = 1", "trian is not known: .* sections are pretrain, train"),
        ("[train]\ngpus = -1", r"train.gpus: .* \(not -1\)"),
        ('gpus = "two"', "gpus: .*integer"),
        ('cluster = "pbs"', "cluster: .*'local' or 'slurm'"),
        ('time = "soon"', "time: give minutes, or HH:MM"),
        ("time =", "cannot be read"),
        (
            "nodes = 2",
            r"nodes above the sections: .*only \[pretrain\] shares it, so write it there",
        ),
        ("[train]\ntasks_per_node = 4", r"\[train\] tasks_per_node: .*only \[pretrain\]"),
        ("[push.sbatch]\nntasks = 2", r"\[push\] sbatch.ntasks: .*only \[pretrain\]"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SiteError, match=rf"site.toml.*{said}"):
        read(tmp_path, text)


def test_processes_are_for_what_shares_its_work(tmp_path: Path) -> None:
    site = read(tmp_path, 'cluster = "slurm"\nnodes = 1\n[pretrain]\nnodes = 2\ntasks_per_node = 4')
    pretrain, train = (site.options(kind)["parameters"] for kind in ("pretrain", "train"))
    assert (pretrain["nodes"], pretrain["tasks_per_node"]) == (2, 4)
    assert train["nodes"] == 1
    assert "tasks_per_node" not in train


def test_an_interpreter_may_have_a_space_in_its_path(tmp_path: Path) -> None:
    for text, words in (
        ('"/shared/our tools/python"', "'/shared/our tools/python'"),
        (
            '["apptainer", "exec", "our image.sif", "python"]',
            "apptainer exec 'our image.sif' python",
        ),
    ):
        site = read(tmp_path, f'cluster = "slurm"\npython = {text}')
        assert site.options("train")["parameters"]["slurm_python"] == words


def run_lines(site: Any, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The lines before a job, in a shell as Slurm starts it: no login shell."""
    lines = [*site.options("train")["parameters"]["slurm_setup"], *more]
    environment = {"PATH": os.environ["PATH"], **variables}
    command = ["bash", "-c", "\n".join(lines)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_shell_reads_the_scratch_folder(tmp_path: Path) -> None:
    site = read(tmp_path, 'cluster = "slurm"\nscratch = "/scratch/$NAME"')
    done = run_lines(site, 'echo "$PLANKTRAIT_SCRATCH"', NAME="our name", PLANKTRAIT_SCRATCH="/of")
    assert (done.returncode, done.stdout, done.stderr) == (0, "/scratch/our name\n", "")


def module_command(folder: Path) -> str:
    """MODULESHOME of a command that knows `cuda/12`."""
    (folder / "init").mkdir()
    (folder / "init" / "bash").write_text(
        'module() { echo "$@"; [ "$2" = cuda/12 ] && export CUDA=here; }\n'
    )
    return str(folder)


def test_modules_are_loaded_where_no_login_shell_has_defined_them(tmp_path: Path) -> None:
    """And before `setup`, which may build on them."""
    site = read(tmp_path, 'cluster = "slurm"\nmodules = ["cuda/12"]\nsetup = ["echo $CUDA"]')
    done = run_lines(site, MODULESHOME=module_command(tmp_path))
    assert (done.returncode, done.stdout) == (0, "load cuda/12\nhere\n"), done.stderr


@pytest.mark.parametrize(
    ("known", "said"),
    [(True, "modules of the site profile: cuda/13 cannot be loaded"), (False, "no command module")],
)
def test_a_module_that_is_missing_ends_the_job(tmp_path: Path, known: bool, said: str) -> None:
    site = read(tmp_path, 'cluster = "slurm"\nmodules = ["cuda/13", "cuda/12"]')
    variables = {"MODULESHOME": module_command(tmp_path)} if known else {}
    done = run_lines(site, "echo goes on", **variables)
    assert done.returncode == 1
    assert "goes on" not in done.stdout
    assert said in done.stderr


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("exclusive = true, hold = false", {"requeue": True, "exclusive": True}),
        ("requeue = false", {"no-requeue": True}),
        ("no-requeue = true", {"no-requeue": True}),
        ("requeue = true, nice = 0", {"requeue": True, "nice": 0}),
    ],
)
def test_an_option_of_sbatch_that_is_a_flag(
    tmp_path: Path, text: str, options: dict[str, Any]
) -> None:
    site = read(tmp_path, f'cluster = "slurm"\nsbatch = {{ {text} }}')
    asked = site.options("train")["parameters"]["slurm_additional_parameters"]
    assert sbatch_options(asked) == options


def test_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLANKTRAIT_SITE", raising=False)
    file = tmp_path / "a.toml"
    assert find_site(file) is None
    file.touch()
    assert find_site(tmp_path / "none.toml", file) == file
    monkeypatch.setenv("PLANKTRAIT_SITE", str(tmp_path / "gone.toml"))
    with pytest.raises(SiteError, match="there is no such file"):
        find_site(file)


def test_the_example_is_right(tmp_path: Path) -> None:
    site = read_site(EXAMPLE, KINDS, OF_PROCESSES)
    assert site.options("train")["executor"] == "slurm"
    # As somebody reads it: what is commented out holds in its section.
    of_processes = re.sub(r"# (nodes|tasks_per_node)", r"\1", EXAMPLE.read_text())
    assert read(tmp_path, of_processes).options("pretrain")["parameters"]["nodes"] == 2


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "1/"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="give K/N"):
        read_part(text)


@pytest.mark.parametrize(
    ("host", "profile", "said"),
    [
        ("127.0.0.1", 'cluster = "slurm"', "serve with --host ADDRESS"),
        ("0.0.0.0", '[train]\ncluster = "slurm"', "Slurm jobs (train) are told"),
        ("localhost", 'cluster = "slurm"\n[push]\ncluster = "local"', "http://localhost:8080"),
        ("192.0.2.7", 'cluster = "slurm"', ""),
        ("127.0.0.1", 'partition = "gpu"', ""),
        ("127.0.0.1", '[push]\ncluster = "slurm"', ""),
        ("127.0.0.1", "cluster = 1", "planktrait-site.toml: cluster: Input should be"),
    ],
)
def test_the_servers_start_tells_of_jobs_that_would_not_reach_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, profile: str, said: str
) -> None:
    home = Home(tmp_path / "home")
    nothing: Any = {"images_root": None, "port": None, "backend_port": None, "allowed_hosts": ()}
    home.change_settings(**asdict(planned_settings(home, host=host, **nothing)))
    (home.folder / "planktrait-site.toml").write_text(profile)
    go_on_with_interrupted(home)
    told = "".join(capsys.readouterr().err.split())  # lines are broken anywhere
    assert said.replace(" ", "") in told if said else told == ""
