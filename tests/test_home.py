"""The home folder: secrets only for their owner, and no image from outside the root."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from label_studio_config.home import Home, HomeError, OutsideRootError


@pytest.fixture
def home(tmp_path):
    root = tmp_path / "images"
    (root / "cruise 1").mkdir(parents=True)
    (root / "cruise 1" / "a+b.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    home = Home(tmp_path / "home")
    home.change_settings(images_root=root)
    return home


def test_secrets_are_for_their_owner_only(home):
    token = home.secrets.api_token
    assert home.secrets_file.stat().st_mode & 0o777 == 0o600
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert Home(home.folder).secrets.api_token == token
    assert token not in repr(home.secrets)


def test_a_home_that_others_can_enter_is_closed(tmp_path):
    folder = tmp_path / "made by hand"
    folder.mkdir()
    folder.chmod(0o755)
    assert Home(folder).folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that is another's")
def test_an_open_home_of_another_user_is_refused(tmp_path):
    folder = tmp_path / "another's"
    folder.mkdir()
    folder.chmod(0o755)
    os.chown(folder, 65534, 65534)
    with pytest.raises(HomeError, match="not yours"):
        Home(folder)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_secrets_made_by_two_at_once_are_the_same(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: Home(tmp_path / "h").secrets.api_token, range(16)))
    assert len(set(tokens)) == 1


def test_open_secrets_file_is_refused(home):
    _ = home.secrets
    home.secrets_file.chmod(0o644)
    with pytest.raises(HomeError, match="chmod 600"):
        _ = Home(home.folder).secrets


def test_broken_settings_file_is_named(home):
    home.settings_file.write_text("{")
    with pytest.raises(HomeError, match=r"settings\.json"):
        _ = home.settings


def test_images_root_must_be_set(tmp_path):
    with pytest.raises(HomeError, match="serve --images"):
        _ = Home(tmp_path / "empty").images_root


def test_image_url_goes_there_and_back(home):
    url = home.image_url("cruise 1/a+b.png")
    assert url == "/data/local-files/?d=cruise%201/a%2Bb.png"
    assert home.resolve_image(url) == home.images_root / "cruise 1" / "a+b.png"
    assert home.resolve_image("cruise 1/a+b.png").is_file()


@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=../secret.png",
        "/data/local-files/?d=cruise%201/%2e%2e/%2e%2e/secret.png",
        "/data/local-files/?d=/etc/passwd",
        "/data/local-files/?d=link.png",
        "/data/local-files/?d=",
        "/data/upload/1/a.png",
        "../secret.png",
        "/etc/passwd",
        "http://example.org/data/local-files/?d=a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "",
    ],
)
def test_images_outside_the_root_are_refused(home, address):
    with pytest.raises(OutsideRootError):
        home.resolve_image(address)
