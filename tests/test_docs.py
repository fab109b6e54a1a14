"""What the documentation says to type exists, and its units and proxy configuration work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
import typer

from label_studio_config.processes import free_port
from planktrait import app
from tests.label_studio_fixtures import serve_for_tests

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOSTING = ROOT / "docs" / "hosting"
UNITS = sorted([*HOSTING.glob("*.service"), *HOSTING.glob("*.timer")])
NAME = "plankton.example.org"


def typed_lines(text: str) -> list[str]:
    """Lines of code blocks that call planktrait."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.removesuffix(" &&") for line in lines if line.startswith("planktrait ")] + [
        line[line.index("planktrait ") :]
        for line in lines
        if re.match(r"(srun|torchrun) .* planktrait ", line)
    ]


def mentions(text: str) -> list[str]:
    """Commands within sentences, which leave out what is not of interest there."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"`(planktrait [^`]+)`", outside)
    return [" ".join(mention.split()) for mention in found]


def words_of(line: str) -> list[str]:
    words = shlex.split(line, comments=True)[1:]
    # Of `submit pretrain|train` any will do; an ellipsis stands for more of the same.
    return [word.split("|")[0] for word in words if word not in ("…", "...")]


def command_of(words: list[str]) -> tuple[Any, list[str], set[str]]:
    """The command, the words that are left for it, and every option on the way there."""
    command, known = typer.main.get_command(app), {"--help"}
    while True:
        known |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        if not hasattr(command, "commands"):
            return command, words, known
        # A group may have options of its own, before the name of the command.
        place = next((n for n, word in enumerate(words) if word in command.commands), None)
        if place is None:
            assert all(word.startswith("-") for word in words), f"no command in {words}"
            return command, words, known
        command.parse_args(command.context_class(command), list(words[:place]) + ["--", "x"])
        command, words = command.commands[words[place]], words[place + 1 :]


def test_there_are_commands_to_check():
    assert len([line for page in PAGES for line in typed_lines(page.read_text())]) > 15


def test_the_check_can_fail():
    command, words, known = command_of(words_of("planktrait serve --imagse /data"))
    assert "--images" in known
    with pytest.raises(Exception, match="No such option"):
        command.make_context("planktrait", words)
    with pytest.raises(AssertionError):
        command_of(words_of("planktrait srve"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_to_be_typed_is_understood(page):
    for line in typed_lines(page.read_text()):
        command, words, _ = command_of(words_of(line))
        if "--help" in words:
            continue
        assert not hasattr(command, "commands"), f"{page.name}: {line}"
        try:
            command.make_context("planktrait", words)
        except Exception as error:
            pytest.fail(f"{page.name}: {line}\n{error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_mentioned_has_these_options(page):
    for mention in mentions(page.read_text()):
        words = words_of(mention)
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert options <= command_of(words)[2], f"{page.name}: {mention}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_benchmark_that_is_mentioned_has_these_options(page):
    for call in re.findall(r"`python -m (benchmarks\.[^`]+)`", page.read_text()):
        module, *words = call.split()
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        if "read_options(" in source:  # those of every benchmark in cells
            source += (ROOT / "benchmarks" / "cells.py").read_text()
        for option in re.findall(r"--[\w-]+", " ".join(words)):
            assert f'"{option}"' in source, f"{page.name}: {call}"


def test_every_file_that_is_linked_is_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links {target}"


def test_the_units_start_what_there_is(tmp_path):
    for unit in UNITS:
        for call in re.findall(r"bin/planktrait ([^'\n]+)", unit.read_text()):
            typed = re.sub(r"\$\([^)]*\)", "made-by-the-shell", call)
            command, words, _ = command_of(words_of(f"planktrait {typed}"))
            command.make_context("planktrait", words)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    here = Path(sys.executable).parent / "planktrait"
    for unit in UNITS:
        text = unit.read_text().replace("/opt/planktrait/.venv/bin/planktrait", str(here))
        (tmp_path / unit.name).write_text(text)
    paths = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def as_planktrait(folder: Path, values: str, *words: str) -> str:
    """What a program says that runs as docs/hosting/as-planktrait has it; here as this user."""
    text = (HOSTING / "as-planktrait").read_text()
    (folder / "planktrait.env").write_text(values)
    for theirs, ours in {
        "/etc/planktrait.env": str(folder / "planktrait.env"),
        "HOME=/srv/planktrait": f"HOME={folder}",
        "runuser -u planktrait -- ": "",
        "/opt/planktrait/.venv/bin": str(Path(sys.executable).parent),
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    script = folder / "as-planktrait"
    script.write_text(text)
    done = subprocess.run(["sh", script, *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_password_of_any_characters_reaches_the_commands(tmp_path):
    password = "a$HOME `id` $(id) &;|<>*?#!~ %d b"
    tell = "import os; print(os.environ['POSTGRE_PASSWORD'], os.environ['DJANGO_DB'], os.getcwd())"
    values = f"# a comment; id\n\nPOSTGRE_PASSWORD={password}\nDJANGO_DB=default\n"
    assert as_planktrait(tmp_path, values, "python", "-c", tell) == (
        f"{password} default {tmp_path}\n"
    )
    shipped = (HOSTING / "planktrait.env").read_text()
    said = as_planktrait(tmp_path, shipped, "python", "-c", tell.replace("DJANGO_DB", "HF_HOME"))
    assert said == f"change-me /srv/planktrait/huggingface {tmp_path}\n"


def test_no_secret_is_to_be_typed_into_a_command():
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            assert not re.search(r"--password[ =]|PASSWORD '|--token[ =]", block), page.name


def test_only_nightly_backups_are_deleted(tmp_path):
    unit = (HOSTING / "planktrait-backup.service").read_text()
    (name,) = re.findall(r"planktrait backup \S*/([\w-]+)\$\(date ", unit)
    (delete,) = re.findall(r"^ExecStartPost=(.*)$", unit, flags=re.MULTILINE)
    # What a killed one has left goes, too; and what one is about to write stays.
    kept = ("before-20260101T000000", f"{name}new", f".{name}new.partial")
    gone = (f"{name}20260101T023000", f".{name}20260101T023000.partial")
    for folder in kept + gone:
        (tmp_path / folder / "home").mkdir(parents=True)
        if "new" not in folder:
            long_ago = time.time() - 40 * 24 * 3600
            os.utime(tmp_path / folder, (long_ago, long_ago))
    # As systemd does it, without a shell.
    words = shlex.split(delete.replace("/var/backups/planktrait", str(tmp_path)))
    subprocess.run(words, check=True)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_people_log_in_through_the_proxy(tmp_path, database_template, monkeypatch):
    nginx, openssl = shutil.which("nginx", path="/usr/sbin:/usr/bin"), shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("nginx or openssl is not installed: apt-get install nginx openssl")
    monkeypatch.setenv("SESSION_COOKIE_SECURE", "1")
    with serve_for_tests(tmp_path, template=database_template, allowed_hosts=[NAME]) as server:
        key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
        request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        command = [openssl, *request, "-subj", f"/CN={NAME}", *files]
        subprocess.run(command, check=True, capture_output=True)
        https, http = free_port(), free_port()
        text = (HOSTING / "nginx.conf").read_text()
        for theirs, ours in {
            "listen 443": f"listen 127.0.0.1:{https}",
            "listen 80": f"listen 127.0.0.1:{http}",
            "/etc/ssl/planktrait": str(tmp_path),
            "127.0.0.1:8080": server.url.removeprefix("http://"),
            # Not the port that a browser leaves out.
            "Host $host;": "Host $http_host;",
        }.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        places = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        log = tmp_path / "nginx.log"
        configuration = tmp_path / "nginx.conf"
        configuration.write_text(
            f"pid {tmp_path}/pid; error_log {log}; daemon off; events {{}}\n"
            f"http {{ access_log off; {places}\n{text} }}"
        )
        with subprocess.Popen([nginx, "-c", str(configuration), "-e", str(log)]) as proxy:
            try:
                log_in_through(server, https, http)
            finally:
                proxy.terminate()


def log_in_through(server, https: int, http: int) -> None:
    """As a browser that has found 127.0.0.1 under the name."""
    url = f"https://127.0.0.1:{https}"
    with requests.Session() as session:
        session.trust_env = False
        session.verify = False
        session.headers["Host"] = f"{NAME}:{https}"
        session.headers["Referer"] = f"https://{NAME}:{https}/user/login/"
        end = time.monotonic() + 30
        while True:
            try:
                page = session.get(f"{url}/user/login/", timeout=30)
                break
            except requests.ConnectionError:
                assert time.monotonic() < end, "nginx does not answer"
                time.sleep(0.05)
        assert page.ok
        form = {
            "email": server.home.secrets.user_email,
            "password": server.home.secrets.user_password,
            "csrfmiddlewaretoken": page.cookies["csrftoken"],
        }
        origin = {"Origin": f"https://{NAME}:{https}"}
        for wrong, status in ({"Origin": "https://example.com"}, 403), (origin, 302):
            answer = session.post(
                f"{url}/user/login/", data=form, headers=wrong, allow_redirects=False, timeout=30
            )
            assert answer.status_code == status, answer.text[:2000]
        assert all(cookie.secure for cookie in session.cookies)
        assert session.get(f"{url}/api/projects/", timeout=30).ok
        other = session.get(f"{url}/health", headers={"Host": "other.example.org"}, timeout=30)
        assert other.status_code == 400
        to_tls = requests.get(
            f"http://127.0.0.1:{http}/user/login/",
            headers={"Host": NAME},
            allow_redirects=False,
            timeout=30,
        )
        assert to_tls.status_code == 301
        assert to_tls.headers["Location"] == f"https://{NAME}/user/login/"
