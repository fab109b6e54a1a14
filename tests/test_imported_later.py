"""What is imported later: quick starts, and the same answers once it is asked for."""

import os
import subprocess
import sys

import pytest

from label_studio_config.home import Home
from label_studio_config.hosting import server_environment
from label_studio_config.imported_later import imported_later


def run(code: str, **environment: str) -> str:
    """What a new Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def tokens(tmp_path, monkeypatch):
    """A package with a module that nobody has imported."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "__init__.py").write_text("")
    (tmp_path / "some" / "tokens.py").write_text(
        "MARKS = 3\nclass Tokens:\n    mark = 1\n    def read(self):\n        return self.mark\n"
    )
    yield
    for name in ("some.tokens", "some"):
        sys.modules.pop(name, None)


def test_a_function_imports_its_module_when_it_is_called(tokens):
    with imported_later({"some.tokens": ["Tokens"]}):
        from some.tokens import Tokens
    assert not {"some", "some.tokens"} & set(sys.modules)
    assert Tokens().read() == 1
    assert sys.modules["some.tokens"].Tokens is not Tokens


def test_what_is_set_on_a_class_is_set_on_the_real_one(tokens):
    with imported_later({"some.tokens": ["Tokens"]}):
        from some.tokens import Tokens

        Tokens.mark = 2
    assert Tokens().read() == 2


def test_where_more_is_wanted_it_is_imported_at_once(tokens):
    with imported_later({"some": [], "some.tokens": ["Tokens"]}):
        from some.tokens import MARKS

        assert MARKS == 3
        assert sys.modules["some.tokens"].MARKS == 3
    from some.tokens import MARKS

    assert MARKS == 3


def test_submodules_of_what_is_put_off_are_found(tokens):
    with imported_later({"some": ["read"]}):
        import some.tokens

        assert some.tokens.MARKS == 3
    assert sys.modules["some"].tokens is sys.modules["some.tokens"]


def test_a_submodule_may_be_taken_from_its_package(tokens):
    with imported_later({"some": ["read"]}):
        from some import tokens as taken
    assert taken.MARKS == 3


def test_called_within_the_block_it_is_imported_at_once(tokens):
    with imported_later({"some": [], "some.tokens": ["Tokens"]}):
        from some.tokens import Tokens

        assert Tokens().read() == 1


def test_what_is_not_there_is_not_made_up(tokens):
    with imported_later({"some.tokens": ["Tokens"]}), pytest.raises(ImportError, match="WORDS"):
        from some.tokens import WORDS  # noqa: F401


def test_what_is_imported_already_stays():
    import json

    with imported_later({"json": ["loads"]}):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["ml_backend.server", "ml_backend.predict", "simclr.embed", "ml_backend.push"]
)
def test_jobs_and_the_backend_start_without_what_they_do_not_use(module):
    found = run(
        f"""
import sys, {module}
print(sorted({{"torch._dynamo", "smart_open", "scipy.optimize", "sklearn"}} & set(sys.modules)))
"""
    )
    assert found == "[]"


@pytest.mark.slow
def test_pytorchs_compiler_works_when_it_is_asked_for():
    code = """
import sys, torch
from simclr.encoder import Encoder
encoder = Encoder.create("test_resnet", 32).eval()
assert "torch._dynamo" not in sys.modules
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
compiled = torch.compile(encoder.backbone, backend="eager")
images = torch.rand(2, 1, 32, 32)
print(torch.allclose(compiled(images), encoder.backbone(images), atol=1e-4))
"""
    assert run(code) == "True"


@pytest.mark.slow
def test_label_studio_starts_without_them_and_they_work_when_they_are_asked_for(tmp_path):
    code = """
import sys, django
django.setup()
import core.urls
assert not {"nltk", "jsf"} & set(sys.modules)
from label_studio_sdk.converter.utils import create_tokens_and_tags
print(" ".join(create_tokens_and_tags("a (b).", None)[0]))
from label_studio_sdk.label_interface import LabelInterface
config = '<View><Image name="i" value="$i"/><Choices name="c" toName="i">'
config += '<Choice value="a"/><Choice value="b"/></Choices></View>'
print(LabelInterface(config).generate_sample_prediction()["result"][0]["type"])
"""
    assert run(code, **server_environment(Home(tmp_path / "home"))) == "a ( b ) .\nchoices"
