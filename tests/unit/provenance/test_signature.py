"""Signed results: attacks that an audit of records cannot see, each named."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from eqcollapse.provenance.audit import _signable, _sizes, sign_results
from eqcollapse.provenance.hashing import content, contents
from eqcollapse.provenance.signature import MANIFEST, SIGNATURE, check_signature
from eqcollapse.runtime.errors import EqcollapseError

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
TABLE, RECORD, IMAGES = (
    "results/tables/a-table-1.csv",
    "results/tables/a-table-1.csv.provenance.json",
    "resources/d.bin",
)


def git(*words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()


def new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path


def trusted(key: Path, options: str = "") -> str:
    return f"author@example.org {options} {key.with_suffix('.pub').read_text()}"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: new_key(folder / name) for name in ("author", "forger")}


@pytest.fixture
def signed(tmp_path, monkeypatch, keys) -> Path:
    """A project with results, signed by the author; return the readers' file of trusted keys."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    for path in (TABLE, RECORD, IMAGES, "params.yaml", "dvc.lock", "requirements.lock", "src.py"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(f"content of {path}\n")
    Path(".gitignore").write_text("/results\n/resources\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "study")
    sign_results(str(keys["author"]))
    signers = tmp_path / "signers"
    signers.write_text(trusted(keys["author"]))
    return signers


def checked(signers: Path, revoked: Path | None = None) -> tuple[list[str], list[str]]:
    """Return the paths of what was found, and the notes."""
    found = _signable(contents(_sizes()))
    findings, notes = check_signature(str(signers), found, str(revoked) if revoked else None)
    assert all(finding.kind == "signature" and finding.expected and finding.found for finding in findings)
    return [finding.path for finding in findings], notes


def edit(path: str) -> None:
    with open(path, "a") as stream:
        stream.write("edited\n")


def forge_manifest(**changes: object) -> None:
    manifest = json.loads(Path(MANIFEST).read_text())
    Path(MANIFEST).write_text(json.dumps(manifest | changes))


def resign(key: Path) -> None:
    os.remove(SIGNATURE)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "eqcollapse-results", MANIFEST], check=True)


def test_an_untouched_tree_says_who_signed_what_and_when(signed, keys):
    findings, notes = checked(signed)
    assert findings == []
    (note,) = notes
    assert note.startswith("6 files of commit " + git("rev-parse", "HEAD")[:12])
    assert "author@example.org" in note
    fingerprint = subprocess.run(["ssh-keygen", "-lf", keys["author"]], capture_output=True, text=True, check=True)
    assert fingerprint.stdout.split()[1] in note


def test_files_of_the_audit_and_of_dvc_are_not_part_of_what_is_signed(signed):
    Path("results/audit.md").write_text("pass")
    Path("results/audit.json").write_text("{}")
    assert checked(signed) == ([], checked(signed)[1])


def rewrite_consistently() -> None:
    for path in (TABLE, RECORD, "dvc.lock"):
        edit(path)


def add(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("new")


def swap() -> None:
    os.rename(TABLE, "t")
    os.rename(RECORD, TABLE)
    os.rename("t", RECORD)


def commit_again() -> None:
    edit("src.py")
    git("commit", "-qam", "other code")


FILES = {
    "result, record and dvc.lock rewritten consistently": (rewrite_consistently, {TABLE, RECORD, "dvc.lock"}),
    "result edited": (lambda: edit(TABLE), {TABLE}),
    "record edited": (lambda: edit(RECORD), {RECORD}),
    "data edited": (lambda: edit(IMAGES), {IMAGES}),
    "one byte flipped, size kept": (lambda: Path(TABLE).write_text(Path(TABLE).read_text().swapcase()), {TABLE}),
    "params edited": (lambda: edit("params.yaml"), {"params.yaml"}),
    "lock edited": (lambda: edit("requirements.lock"), {"requirements.lock"}),
    "file emptied": (lambda: Path(TABLE).write_text(""), {TABLE}),
    "file removed": (lambda: os.remove(TABLE), {TABLE}),
    "dvc.lock removed": (lambda: os.remove("dvc.lock"), {"dvc.lock"}),
    "file added": (lambda: add("results/tables/z.csv"), {"results/tables/z.csv"}),
    "hidden file added": (lambda: add("resources/.x/y"), {"resources/.x/y"}),
    "two files swapped": (swap, {TABLE, RECORD}),
    "source edited": (lambda: edit("src.py"), {"src.py"}),
    "commit changed": (commit_again, {"HEAD"}),
}


@pytest.mark.parametrize("attack", FILES)
def test_a_tree_that_differs_from_what_was_signed_is_named_by_file(signed, attack):
    change, named = FILES[attack]
    change()
    assert set(checked(signed)[0]) == named


def own_files() -> dict:
    edit(TABLE)
    return {
        path: {"bytes": each.bytes, "sha256": each.sha256}
        for path, each in [(TABLE, content(TABLE)), *((p, content(p)) for p in (RECORD, IMAGES))]
    }


MANIFESTS = {
    "manifest edited": lambda keys: forge_manifest(files=own_files()),
    "commit of the manifest edited": lambda keys: forge_manifest(commit="0" * 40),
    "time of the manifest edited": lambda keys: forge_manifest(signed="2001-01-01T00:00:00Z"),
    "manifest of other results, signed by a stranger": lambda keys: (
        forge_manifest(files=own_files()),
        resign(keys["forger"]),
    ),
    "signature of a stranger on the true manifest": lambda keys: resign(keys["forger"]),
    "manifest is no JSON": lambda keys: Path(MANIFEST).write_text("files"),
    "manifest of another format": lambda keys: forge_manifest(format="x"),
    "manifest without files": lambda keys: forge_manifest(files=[]),
    "manifest stripped": lambda keys: os.remove(MANIFEST),
    "signature emptied": lambda keys: Path(SIGNATURE).write_text(""),
    "signature stripped": lambda keys: os.remove(SIGNATURE),
}


@pytest.mark.parametrize("attack", MANIFESTS)
def test_a_manifest_or_signature_that_does_not_count_is_named(signed, keys, attack):
    MANIFESTS[attack](keys)
    (path,), notes = checked(signed)
    assert path in (MANIFEST, SIGNATURE)
    assert notes == []


def test_a_signature_for_another_purpose_does_not_count(signed, keys):
    os.remove(SIGNATURE)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", keys["author"], "-n", "git", MANIFEST], check=True)
    assert checked(signed)[0] == [MANIFEST]


def test_a_key_revoked_since_does_not_count(signed, keys, tmp_path):
    revoked = tmp_path / "revoked"
    revoked.write_text(keys["author"].with_suffix(".pub").read_text())
    assert checked(signed, revoked)[0] == [MANIFEST]
    revoked.write_text(keys["forger"].with_suffix(".pub").read_text())
    assert checked(signed, revoked)[0] == []


@pytest.mark.parametrize(
    ("options", "counts"),
    [('valid-before="20200101"', False), ('valid-after="20200101"', True), ('namespaces="git"', False)],
)
def test_a_key_counts_for_its_time_and_its_purpose_only(signed, keys, options, counts):
    signed.write_text(trusted(keys["author"], options))
    assert (checked(signed)[0] == []) is counts


def test_uncommitted_changes_are_not_signed(signed, keys):
    edit("src.py")
    with pytest.raises(EqcollapseError, match=r"sign: src\.py differs from the commit"):
        sign_results(str(keys["author"]))


def test_what_is_asked_for_must_be_there(signed, keys, tmp_path):
    with pytest.raises(EqcollapseError, match="there is no such file of keys"):
        checked(tmp_path / "nobody")
    with pytest.raises(EqcollapseError, match=r"ssh-keygen: .*No such file"):
        sign_results(str(tmp_path / "no-key"))
    shutil.rmtree(".git")
    with pytest.raises(EqcollapseError, match="git has no commit here"):
        sign_results(str(keys["author"]))
