"""Label Studio as we host it: started and stopped as one, closed where it is open by default."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest
import requests

import hpc_jobs
from hpc_jobs.files import read_json
from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment, start_in_background
from label_studio_config.manifest import Manifest
from label_studio_config.processes import HostingError, ServerProcess, free_port, require_free_port
from label_studio_config.project import create_project
from label_studio_config.task_import import import_manifest
from label_studio_config.users import add_user
from ml_backend.job_keys import goes_on, train_key
from tests.label_studio_fixtures import serve_for_tests

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_the_first_token_works(label_studio):
    me = label_studio.get("/api/current-user/whoami")
    assert me["email"] == label_studio.home.secrets.user_email


def test_the_first_user_logs_in(label_studio):
    with requests.Session() as session:
        session.trust_env = False
        page = session.get(f"{label_studio.url}/user/login/")
        answer = session.post(
            f"{label_studio.url}/user/login/",
            data={
                "email": label_studio.home.secrets.user_email,
                "password": label_studio.home.secrets.user_password,
                "csrfmiddlewaretoken": page.cookies["csrftoken"],
            },
            headers={"Referer": page.url},
        )
        assert answer.ok
        assert "/user/login" not in answer.url
        assert session.get(f"{label_studio.url}/api/projects/").ok


def sign_in(label_studio, email: str, password: str, page: str = "/user/login/") -> int:
    """What a browser is answered: a form of accounts that is refused, or then its projects."""
    with requests.Session() as session:
        session.trust_env = False
        form = session.get(label_studio.url + page)
        answer = session.post(
            label_studio.url + page,
            data={
                "email": email,
                "password": password,
                "csrfmiddlewaretoken": session.cookies["csrftoken"],
            },
            headers={"Referer": form.url},
        )
        if not answer.ok:
            return answer.status_code
        return session.get(f"{label_studio.url}/api/projects/").status_code


def test_whoever_has_the_invitation_makes_an_account_until_it_is_reset(label_studio):
    link = label_studio.get("/api/invite")["invite_url"]
    assert sign_in(label_studio, "invited@example.org", "a long password", link) == 200
    assert label_studio.request("POST", "/api/invite/reset-token").ok
    assert sign_in(label_studio, "late@example.org", "a long password", link) == 403
    emails = [user["email"] for user in label_studio.get("/api/users/")]
    assert "invited@example.org" in emails
    assert "late@example.org" not in emails


def test_a_new_password_and_no_more_access_as_hosting_says_it(label_studio):
    emails = ("anna@example.org", "ben@example.org")
    tokens = {}
    for email in emails:
        tokens[email] = add_user(label_studio.home, email, "a long password").token
        assert sign_in(label_studio, email, "a long password") == 200
    text = (ROOT / "docs" / "hosting.md").read_text()
    for line in re.findall(r"^as-planktrait (python -m django .*)$", text, flags=re.MULTILINE):
        done = subprocess.run(
            [sys.executable, *shlex.split(line)[1:]],
            input="a longer password\n" * 2,
            env=server_environment(label_studio.home),
            cwd=label_studio.home.folder,
            capture_output=True,
            text=True,
            start_new_session=True,  # no terminal: the password is read from what is given
        )
        assert done.returncode == 0, done.stderr
    assert sign_in(label_studio, "anna@example.org", "a longer password") == 200
    assert sign_in(label_studio, "anna@example.org", "a long password") == 401
    assert sign_in(label_studio, "ben@example.org", "a long password") == 401
    for email, answer in zip(emails, (200, 401), strict=True):
        token = {"Authorization": f"Token {tokens[email]}"}
        projects = requests.get(f"{label_studio.url}/api/projects/", headers=token, timeout=30)
        assert projects.status_code == answer


def test_static_files_are_served(label_studio):
    page = label_studio.request("GET", "/static/icons/logo-black.svg")
    assert page.ok
    assert "svg" in page.headers["Content-Type"]
    # Served through the manifest of the built front end.
    assert label_studio.request("GET", "/react-app/main.js").ok


def test_sign_up_is_closed(label_studio):
    page = "/user/signup/"
    assert sign_in(label_studio, "stranger@example.org", "a long password", page) == 403
    emails = [user["email"] for user in label_studio.get("/api/users/")]
    assert "stranger@example.org" not in emails


def test_cors_is_closed(label_studio):
    answer = label_studio.request("GET", "/api/version", headers={"Origin": "http://example.org"})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_unknown_host_names_are_refused(label_studio):
    assert label_studio.request("GET", "/", headers={"Host": "example.org"}).status_code == 400
    assert label_studio.request("GET", "/health", headers={"Host": "localhost"}).ok


def test_no_telemetry(label_studio):
    page = label_studio.request("GET", "/user/login/").text
    assert "googletagmanager" not in page
    assert "sentry-cdn" not in page
    assert label_studio.request("GET", "/heidi-tips/").json() == {}


def test_nothing_secret_is_readable_by_others(label_studio):
    home = label_studio.home
    for path in (home.folder, home.secrets_file):
        assert path.stat().st_mode & 0o077 == 0, path
    token = home.secrets.api_token
    assert token not in home.settings_file.read_text()
    assert home.secrets.user_password not in label_studio.log()


def test_write_ahead_log_is_on(label_studio):
    database = label_studio.home.label_studio_folder / "label_studio.sqlite3"
    # Bytes 18 and 19 of the header, https://www.sqlite.org/fileformat.html#the_database_header
    assert database.read_bytes()[18:20] == b"\x02\x02"


def test_other_local_addresses_stay_refused(label_studio):
    """Only our backend's address passes the guard; the port next to it does not."""
    project = label_studio.request("POST", "/api/projects", json={"title": "guard"}).json()
    for url in ("http://127.0.0.1:1", "http://169.254.169.254", "http://localhost:22"):
        backend = label_studio.request(
            "POST", "/api/ml", json={"project": project["id"], "url": url, "title": "x"}
        )
        assert backend.status_code in (400, 403), (url, backend.text)
        assert "reserved" in backend.text
        hook = label_studio.request(
            "POST", "/api/webhooks/", json={"project": project["id"], "url": url}
        )
        assert hook.status_code in (400, 403), (url, hook.text)
    own = label_studio.home.settings.backend_url
    tasks = label_studio.request(
        "POST", f"/api/projects/{project['id']}/import", data={"url": f"{own}/tasks.json"}
    )
    assert not tasks.ok


def test_a_second_serve_of_the_same_home_says_so(label_studio):
    with pytest.raises(HostingError, match=r"served already \(process \d+\)"):
        start_in_background(label_studio.home)


def test_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        home = Home(tmp_path / "home")
        with pytest.raises(HostingError, match=rf"port {port} .*--port"):
            start_in_background(home, port=port)
        # The next start, without --port, must not fail for it.
        assert home.settings.label_studio_port == 8080
        with pytest.raises(HostingError, match=rf"port {port} .*--backend-port"):
            start_in_background(
                home, port=free_port(), backend_port=port, backend_application="none:none"
            )
        assert home.settings.backend_port == 9090
        with pytest.raises(HostingError, match="not allowed"):
            require_free_port(99999, "127.0.0.1", "--port")


def test_missing_images_root_is_named(tmp_path):
    with pytest.raises(HostingError, match="nowhere is not a folder"):
        start_in_background(Home(tmp_path / "home"), images_root=tmp_path / "nowhere")


def test_a_home_inside_the_images_root_is_refused(tmp_path):
    """Its secrets and database would be served to everyone who is logged in."""
    home = Home(tmp_path / "data" / "home")
    with pytest.raises(HostingError, match="lies inside the images root"):
        start_in_background(home, images_root=tmp_path / "data", port=free_port())
    assert home.settings.images_root is None
    # One that was written before is refused too.
    home.change_settings(images_root=tmp_path)
    with pytest.raises(HostingError, match="lies inside the images root"):
        start_in_background(home, port=free_port())


@pytest.mark.parametrize("name", ["http://plankton.example.org", "plankton.example.org:8080"])
def test_an_allowed_host_is_a_name_alone(tmp_path, name):
    with pytest.raises(HostingError, match="give the name alone"):
        start_in_background(Home(tmp_path / "home"), port=free_port(), allowed_hosts=[name])


def test_another_address_and_host_names_are_served(tmp_path, database_template):
    with serve_for_tests(
        tmp_path,
        template=database_template,
        host="127.0.0.2",
        allowed_hosts=["plankton.example.org"],
    ) as server:
        settings = server.home.settings
        assert server.url == f"http://127.0.0.2:{settings.label_studio_port}"
        assert settings.allowed_hosts == ("plankton.example.org", "127.0.0.2")
        assert Api(server.home).get("/api/projects/")["results"] == []
        for host, status in (("plankton.example.org", 200), ("plankton.example.com", 400)):
            answer = server.request("GET", "/user/login/", headers={"Host": host})
            assert answer.status_code == status, host
        (line,) = [line for line in server.log().splitlines() if "plankton.example.com" in line]
        assert "docs/security.md" in line
        assert "Traceback" not in server.log()


def test_all_addresses_are_probed_on_loopback_and_hosts_are_kept(tmp_path, database_template):
    with serve_for_tests(
        tmp_path, template=database_template, host="0.0.0.0", allowed_hosts=["ship"]
    ) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.home.settings.allowed_hosts == ("ship",)
        folder = server.home.folder.parent
    with serve_for_tests(folder) as server:
        assert server.request("GET", "/user/login/", headers={"Host": "ship"}).ok


def test_a_server_that_dies_shows_its_log(tmp_path):
    process = ServerProcess(
        name="Broken",
        command=[sys.executable, "-c", "raise SystemExit('the disk is full')"],
        env=dict(os.environ),
        folder=tmp_path,
        log_file=tmp_path / "log",
        health_url=f"http://127.0.0.1:{free_port()}/health",
    )
    process.start()
    with pytest.raises(HostingError, match="the disk is full"):
        process.await_health(30, lambda line: None)


@contextmanager
def served_by_another_process(home, images_root):
    """`serve` in a process of its own once Label Studio answers: that process, and the port."""
    port = free_port()
    code = (
        "import signal\n"
        "from label_studio_config.home import Home\n"
        "from label_studio_config.hosting import serve\n"
        # What a shell begins in the background is born deaf to it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"serve(Home({str(home.folder)!r}), images_root={str(images_root)!r}, port={port}, "
        "report=lambda line: print(line, flush=True))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=server_environment(home), stdout=subprocess.PIPE, text=True
    ) as front:
        assert front.stdout is not None
        try:
            assert any("answers at" in line for line in iter(front.stdout.readline, ""))
            yield front, port
        finally:
            front.terminate()


@pytest.fixture
def own_home(tmp_path, database_template):
    """A home with a migrated database, not served yet."""
    home = Home(tmp_path / "home")
    (home.label_studio_folder / "label_studio.sqlite3").write_bytes(database_template.read_bytes())
    return home


@pytest.fixture
def images_root(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything(own_home, images_root, number):
    with served_by_another_process(own_home, images_root) as (front, port):
        front.send_signal(number)
        assert front.wait(30) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/health", timeout=5)
    require_free_port(port, "127.0.0.1", "--port")


def test_servers_left_by_a_killed_serve_are_stopped_by_the_next(own_home, images_root):
    with served_by_another_process(own_home, images_root) as (front, port):
        front.kill()
    assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    # Another process that has got a number from the lock file is left alone.
    with (own_home.folder / "serve.lock").open("a") as lock:
        lock.write(f"\n{os.getppid()}")
    with start_in_background(own_home, port=port, workers=1):
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok


def test_a_backend_that_dies_is_started_again_and_label_studio_stays(own_home, tmp_path):
    with serve_for_tests(tmp_path, with_backend=True) as server:
        backend = server.servers.processes[1]
        for _ in range(4):
            if backend not in server.servers.processes:
                break
            assert backend.pid
            os.killpg(backend.pid, signal.SIGKILL)
            while backend.is_running():
                time.sleep(0.05)
            server.servers.check()
        assert backend not in server.servers.processes
        assert server.request("GET", "/health").ok


def test_label_studio_that_dies_is_started_again_and_jobs_go_on(own_home, tmp_path):
    with serve_for_tests(tmp_path) as server:
        job = hpc_jobs.submit(time.sleep, 300, name="sleep", folder=server.home.jobs_folder)
        label_studio = server.servers.processes[0]
        for times in range(4):
            assert label_studio.pid
            os.killpg(label_studio.pid, signal.SIGKILL)
            while label_studio.is_running():
                time.sleep(0.05)
            if times == 3:
                with pytest.raises(HostingError, match="started again 3 times within 10 minutes"):
                    server.servers.check()
                break
            server.servers.check()
            if times == 0:
                label_studio.await_health(120, lambda line: None)
                assert server.get("/api/projects/")["results"] == []
        assert job.record().active


def serve_as_a_service(home):
    """`planktrait serve` of a home, and what it said until both servers answered."""
    ports = ["--port", str(free_port()), "--backend-port", str(free_port())]
    command = [sys.executable, "-m", "planktrait", "serve", "--home", str(home.folder), *ports]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    front = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert front.stderr is not None
    return front, front.stderr


def until(lines, wanted):
    """What was said, up to the line that holds some words."""
    said = []
    for line in iter(lines.readline, ""):
        said.append(line)
        if wanted in line:
            return "".join(said)
    pytest.fail(f"never said {wanted!r}: {''.join(said)}")


def test_what_the_machines_end_cuts_off_is_taken_up_at_the_next_start(own_home):
    """kill -9 of everything; the next start begins the training again, once, and tells of the rest.

    A clean stop ends only what was started through the servers.
    """
    jobs = own_home.jobs_folder
    front, lines = serve_as_a_service(own_home)
    until(lines, "ML backend answers")
    options = {"folder": jobs, "niceness": 0}
    training = hpc_jobs.submit_once(
        time.sleep, 300, name="train project 1", key=train_key(1), **options
    ).job
    submitted = hpc_jobs.submit(time.sleep, 300, name="predict cruise", **options)
    victims = [int(pid) for pid in (own_home.folder / "serve.lock").read_text().split()]
    for job in (training, submitted):
        while job.record().state != "running":
            time.sleep(0.05)
        victims.append(read_json(job.folder / "job.json")["process"]["pid"])
    for pid in victims:
        os.killpg(pid, signal.SIGKILL)
    front.wait()
    assert [job.wait(10).state for job in (training, submitted)] == ["killed", "killed"]

    front, lines = serve_as_a_service(own_home)
    said = until(lines, "Interrupted: predict cruise")
    assert "Interrupted: train project 1: begun again" in said
    assert "predict cruise: start it again" in said
    again = hpc_jobs.list_jobs(jobs, newest=1)[0]
    assert (again.name, again.key, again.active) == ("train project 1", train_key(1), True)
    assert again.id in said
    own = hpc_jobs.submit(time.sleep, 300, name="embed cruise", **options)
    front.send_signal(signal.SIGTERM)
    said = until(lines, "Ended train project 1")
    assert front.wait(60) == 0
    assert "embed" not in said
    assert own.record().active
    assert hpc_jobs.read_job(again.folder).state == "cancelled"
    # Once begun again and cut off again, it is only told of.
    (told,) = hpc_jobs.take_up_interrupted(jobs, goes_on)
    assert (told.job.id, told.again) == (again.id, None)
    assert hpc_jobs.take_up_interrupted(jobs, goes_on) == []
    own.cancel(grace_s=1)


def test_a_restart_keeps_everything_and_a_wider_images_root_finds_the_images(own_home, tmp_path):
    folder = tmp_path / "data" / "cruise ü" / "images"
    folder.mkdir(parents=True)
    (folder / "a+b.png").write_bytes(b"an image")
    table = pd.DataFrame({"image_id": ["a"], "path": ["a+b.png"]})
    config = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
    <Choice value="Copepod"/><Choice value="Detritus"/></Choices></View>"""
    with serve_for_tests(tmp_path, images_root=folder) as server:
        project = create_project(server.home, "Wider", config)
        import_manifest(server.home, project.id, Manifest(table, folder))
        token = server.home.secrets.api_token
        gallery = f"/api/planktrait/projects/{project.id}/gallery/page?suggested=0"
        (crop,) = server.get(gallery)["crops"]
    (tmp_path / "other").mkdir()
    with pytest.raises(HostingError, match="does not hold"):
        start_in_background(own_home, images_root=tmp_path / "other")
    with serve_for_tests(tmp_path, images_root=tmp_path / "data") as server:
        assert server.home.secrets.api_token == token
        assert len(server.get("/api/users/")) == 1
        assert [p["title"] for p in server.get("/api/projects/")["results"]] == ["Wider"]
        (task,) = server.get("/api/tasks", params={"project": project.id})["tasks"]
        assert server.home.resolve_image(task["data"]["image"]) == (folder / "a+b.png").resolve()
        assert server.request("GET", task["data"]["image"]).content == b"an image"
        assert task["data"]["image"] != crop["image"]
        path = server.home.label_studio_folder / "label_studio.sqlite3"
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute("SELECT image FROM planktrait_crop").fetchall()
        assert crop["image"] not in {image for (image,) in rows}
        (crop,) = server.get(gallery)["crops"]
        assert crop["image"] == task["data"]["image"]
        again = import_manifest(server.home, project.id, Manifest(table, folder))
        assert (again.added, again.present) == (0, 1)
        assert len(server.get(f"/api/storages/localfiles?project={project.id}")) == 1
