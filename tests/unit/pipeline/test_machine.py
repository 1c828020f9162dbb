"""A GPU or a package that params.yaml asks for and that is not there is said before any job."""

from types import SimpleNamespace

import pytest
import yaml

from eqcollapse.pipeline import machine, plan
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.gpus import VISIBLE


@pytest.fixture
def devices(tmp_path, monkeypatch):
    """A folder that stands for /dev, with a GPU in it that torch can use."""
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (tmp_path / "nvidia0").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["nvidia0", "nvidia11", "dxg"])
def test_a_gpu_is_seen(name, devices):
    (devices / "nvidia0").rename(devices / name)
    machine.check_gpu(contained=False, devices=devices)


def test_a_machine_without_a_gpu_is_refused(devices):
    (devices / "nvidia0").rename(devices / "nvidiactl")
    with pytest.raises(EqcollapseError, match=r"^params\.yaml: device: cuda .* machine has none: set it to auto"):
        machine.check_gpu(contained=True, devices=devices)


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_the_environment_hides_are_not_there(hidden, devices, monkeypatch):
    monkeypatch.setenv(VISIBLE, hidden)
    with pytest.raises(EqcollapseError, match=rf"device: cuda .* {VISIBLE} hides all"):
        machine.check_gpu(contained=False, devices=devices)


def test_torch_must_be_able_to_use_it_but_in_the_image_another_torch_does(devices, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    machine.check_gpu(contained=True, devices=devices)
    with pytest.raises(EqcollapseError, match="torch cannot use"):
        machine.check_gpu(contained=False, devices=devices)


@pytest.mark.parametrize(("contained", "where"), [(True, "the image does not have"), (False, "is not installed")])
def test_event_files_need_tensorboard_where_the_jobs_run(contained, where, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EqcollapseError, match=rf"^params\.yaml: log\.tensorboard: true .*{where}.*$"):
        machine.check_tensorboard(contained=contained)


def test_a_run_without_tensorboard_is_refused_before_any_job(content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    content["log"]["tensorboard"] = True
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    none = SimpleNamespace(deployment_method=())
    workflow = SimpleNamespace(deployment_settings=none, is_main_process=True, configfiles=["params.yaml"])
    run = plan.Run(content, workflow)
    with pytest.raises(SystemExit):
        run.begin()
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'tensorboard" in line
    assert not (tmp_path / ".snakemake").exists()
