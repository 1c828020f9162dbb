"""What a killed process was writing goes when the file is written again; what may still be written stays."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eqcollapse.runtime import files

ROOT = Path(__file__).parents[3]
WRITE = """
import sys
from eqcollapse.runtime.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    sys.stdin.read()
"""


def begun(path: Path) -> subprocess.Popen:
    """Start a process that is in the midst of writing `path`."""
    words = [sys.executable, "-c", WRITE, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, **pipes)
    assert process.stdout.readline() == b"begun\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "figure[1].pdf"


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_write(path):
    kill(begun(path))
    assert len(names(path)) == 1
    other = path.with_name("other.pdf")
    files.write_text(other, "whole")
    assert len(names(path)) == 2
    files.write_text(path, "whole")
    assert names(path) == ["figure[1].pdf", "other.pdf"]


def test_what_another_process_is_writing_stays_and_is_whole_in_the_end(path):
    process = begun(path)
    files.write_text(path, "whole")
    assert len(names(path)) == 2
    process.communicate()
    assert process.returncode == 0
    assert names(path) == ["figure[1].pdf"]
    assert path.read_text() == "half"


@pytest.mark.parametrize(("age", "stays"), [(60, True), (2 * 86400, False)])
def test_what_a_process_elsewhere_may_be_writing_stays_for_a_day(path, age, stays):
    elsewhere = path.with_name(f".{path.name}.0123abcd.1.partial")
    elsewhere.write_text("half")
    then = time.time() - age
    os.utime(elsewhere, (then, then))
    files.write_text(path, "whole")
    assert elsewhere.exists() == stays


def test_a_named_pipe_is_written_to_and_stays(path):
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    files.write_named(path, "whole")
    reader.join(10)
    assert read == ["whole"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_named_device_is_written_to_and_stays():
    ours, device = os.openpty()
    path = Path(os.ttyname(device))
    files.write_named(path, "whole")
    assert os.read(ours, 100) == b"whole"
    assert stat.S_ISCHR(path.stat().st_mode)
    os.close(ours)
    os.close(device)


@pytest.mark.parametrize("old", ["old", None])
def test_a_named_link_is_followed(path, old):
    target = path.parent / "elsewhere" / "target"
    target.parent.mkdir()
    if old:
        target.write_text(old)
    path.symlink_to(target)
    files.write_named(path, "whole")
    assert path.is_symlink()
    assert target.read_text() == "whole"
    assert names(target) == ["target"]


def test_a_named_descriptor_is_written_to(path):
    reading, writing = os.pipe()
    files.write_named(f"/dev/fd/{writing}", "whole")
    os.close(writing)
    with open(reading) as stream:
        assert stream.read() == "whole"


def test_standard_output_goes_on_where_it_was(path):
    program = (
        "from eqcollapse.runtime.files import write_named; print('first'); write_named('/dev/stdout', 'second\\n')"
    )
    with path.open("w") as stream:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        subprocess.run([sys.executable, "-c", program], stdout=stream, env=environment, check=True)
    assert path.read_text() == "first\nsecond\n"


def test_an_ordinary_named_file_is_replaced_in_one_step(path):
    path.write_text("old")
    with path.open() as old:
        files.write_named(path, "whole")
        assert old.read() == "old"
    assert path.read_text() == "whole"
    assert names(path) == [path.name]
