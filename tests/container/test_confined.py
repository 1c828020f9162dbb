"""The image as an ordinary user with one folder to write to: all of the pipeline runs, and leaves nothing elsewhere."""

import subprocess

import pytest

import sites

pytestmark = pytest.mark.container

USER = 65534
"""nobody, who owns nothing here."""
AS_USER = f"""
set -eu
mount -t tmpfs -o mode=755 tmpfs /mnt     # in a name space of its own: what lies above tests' folders is root's alone
mkdir /mnt/image /mnt/project
mount --bind "$1" /mnt/image
mount --bind "$2" /mnt/project
chown -R {USER}:{USER} /mnt/project
cd /
exec setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs env -i PATH=/usr/bin:/bin:/usr/sbin \\
    apptainer exec --containall --no-home --bind /mnt/project --pwd /mnt/project /mnt/image sh -eu -c "$3"
"""
WRITES = """
for folder in / /opt/venv /opt/venv/bin /usr /etc /var /home /root /mnt; do
    if touch "$folder/written" 2> /tmp/said; then echo "written: $folder"; fi
done
rm /tmp/said
touch here
rm here
id -u
"""
"""What an ordinary user may write to: said of each folder but the work folder, where it must succeed."""
RUN = """
export XDG_CACHE_HOME=/tmp/eqcollapse-snakemake   # Snakemake's own cache, which lies in a home where it runs outside
snakemake --cores all
echo left: $(find /tmp /var/tmp /dev/shm "$HOME" -type f -not -path '/tmp/eqcollapse-*' 2> /dev/null)
"""


def as_user(folder, script: str) -> subprocess.CompletedProcess:
    """Run `script` in the image as nobody, in `folder` and with no other folder of this machine."""
    image = (sites.image() / "containers/eqcollapse.sif").resolve()
    words = ["unshare", "--mount", "sh", "-c", AS_USER, "sh", image, folder, script]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)


def test_only_the_work_folder_and_the_temporary_one_can_be_written(tmp_path):
    sites.image()
    answer = as_user(tmp_path, WRITES)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [str(USER)]


def test_a_study_runs_without_root_and_writes_nowhere_else(bare, tmp_path):
    project = bare.clone(tmp_path / "project")
    answer = as_user(project.folder, RUN)
    said = answer.stdout + answer.stderr
    assert answer.returncode == 0, said[-5000:]
    assert answer.stdout.splitlines()[-1].strip() == "left:"
    assert sites.results(project) == sites.results(bare)
    assert {path.stat().st_uid for path in project.folder.rglob("*")} == {USER}
