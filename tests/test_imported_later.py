"""What is imported later: quick starts, and the same answers once it is asked for."""

import subprocess
import sys

import pytest

from label_studio_config.imported_later import imported_later


def run(code: str) -> str:
    """What a new Python prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_stand_in_imports_when_it_is_called_and_leaves_nothing_behind():
    code = """
import sys
from label_studio_config.imported_later import imported_later
with imported_later("colorsys", "xml.dom.minidom"):
    from colorsys import rgb_to_hls
    import xml.dom.minidom
print("colorsys" in sys.modules, "xml.dom.minidom" in sys.modules)
print(rgb_to_hls(0, 0, 1), "colorsys" in sys.modules)
"""
    assert run(code) == "False False\n(0.6666666666666666, 0.5, 1.0) True"


def test_what_is_imported_already_stays():
    import json

    with imported_later("json"):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json


def test_what_is_set_on_a_class_is_set_on_the_real_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_tokens.py").write_text(
        "class Tokens:\n    mark = 1\n    def read(self):\n        return self.mark\n"
    )
    with imported_later("some_tokens"):
        from some_tokens import Tokens

        Tokens.mark = 2
    assert Tokens().read() == 2


def test_what_is_asked_for_under_its_own_name_is_not_made_up():
    with imported_later("colorsys"):
        import colorsys

        with pytest.raises(AttributeError):
            assert colorsys.__version__
    sys.modules.pop("colorsys", None)


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
encoder = Encoder.create("test_resnet", 32)
assert "torch._dynamo" not in sys.modules
import torchvision
print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0, 0, 0, 4.0, 4.0]]), 1))
compiled = torch.compile(lambda x: x * 2, backend="eager")
print(compiled(torch.ones(1)), torch._dynamo.__file__ is not None)
"""
    assert run(code) == "tensor([[[[1.]]]])\ntensor([2.]) True"


@pytest.mark.slow
def test_sample_tasks_are_drawn_when_they_are_asked_for():
    code = """
import sys
import label_studio_config.config_xml
assert "jsf" not in sys.modules
from label_studio_sdk.label_interface import LabelInterface
config = '<View><Image name="i" value="$i"/><Choices name="c" toName="i">'
config += '<Choice value="a"/><Choice value="b"/></Choices></View>'
print(LabelInterface(config).generate_sample_prediction()["result"][0]["type"])
"""
    assert run(code) == "choices"
