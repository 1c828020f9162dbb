"""Signed results: one manifest of everything, signed with the author's ssh key, and what a checkout says against it.

The audit proves that files, records, settings and code agree with each other. Who rewrites all of them together passes
it; a signature does not let him, unless he has a key that the reader trusts. `ssh-keygen -Y` signs and verifies, as it
does for git: the readers' FILE of trusted keys is an `allowed_signers` file (ssh-keygen(1), "ALLOWED SIGNERS").
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eqcollapse.provenance import commits
from eqcollapse.provenance.findings import Finding
from eqcollapse.provenance.hashing import Content, content
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import write_text

MANIFEST, SIGNATURE = "results/manifest.json", "results/manifest.json.sig"
FORMAT, NAMESPACE = "eqcollapse-manifest/1", "eqcollapse-results"
BESIDE = ("params.yaml", "dvc.lock", "requirements.lock")
"""What is signed beside everything under results/ and resources/: the study, DVC's lock and the environment's."""


def sign(key: str, found: Mapping[str, Content]) -> str:
    """Write the manifest of the files `found` under results/ and resources/, sign it with `key`; return its signer.

    `key`: an ssh private key, or a public one whose private key the ssh agent holds. The signer is the fingerprint of
    the key. Raises EqcollapseError where git knows no commit, tracked files are changed, or ssh-keygen refuses.
    """
    commit = commits.head()
    if commit is None:
        raise EqcollapseError("sign: git has no commit here; a signature names the commit that made the results")
    if changed := commits.changed_files():
        raise EqcollapseError(f"sign: {changed[0]} differs from the commit; commit it (or restore it) first")
    files = _with_beside(found)
    manifest = {
        "format": FORMAT,
        "commit": commit,
        "signed": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files": {path: {"bytes": each.bytes, "sha256": each.sha256} for path, each in sorted(files.items())},
    }
    text = json.dumps(manifest, indent=1) + "\n"
    signature = _keygen("sign", "-f", key, "-n", NAMESPACE, said=text.encode())
    write_text(SIGNATURE, signature)
    write_text(MANIFEST, text)
    return _fingerprint()


def check_signature(
    signers: str, found: Mapping[str, Content], revoked: str | None = None
) -> tuple[list[Finding], list[str]]:
    """Return what is wrong with the signed manifest against the files `found`, and a note of who signed when.

    `signers`: an allowed_signers file; `revoked`: public keys, a line each, or a KRL, that are trusted no longer.
    """
    for file in filter(None, (signers, revoked)):
        if not os.path.isfile(file):
            raise EqcollapseError(f"{file}: there is no such file of keys")
    for file, what in ((MANIFEST, "a signed manifest"), (SIGNATURE, "the manifest's signature")):
        if not os.path.isfile(file):
            remedy = "ask the author for it; `eqcollapse sign` makes one"
            return [Finding("signature", file, what, "no such file", remedy)], []
    text = Path(MANIFEST).read_bytes()
    try:
        manifest = _parsed(text)
        signer = _verified(text, manifest, signers, revoked)
    except _RefusedError as refusal:
        return [Finding("signature", MANIFEST, refusal.expected, refusal.found, refusal.remedy)], []
    note = (
        f"{len(manifest['files'])} files of commit {manifest['commit'][:12]} are signed by {signer} "
        f"({_fingerprint()}), who gives the time as {manifest['signed']}"
    )
    return list(_differences(manifest, _with_beside(found))), [note]


class _RefusedError(Exception):
    """A manifest whose signature counts for nothing."""

    def __init__(self, expected: str, found: str, remedy: str):
        super().__init__(found)
        self.expected, self.found, self.remedy = expected, found, remedy


def _parsed(text: bytes) -> dict[str, Any]:
    """Return the manifest. It is read before its signature is verified, for its time alone."""
    try:
        manifest = json.loads(text)
        files = {str(path): (int(each["bytes"]), str(each["sha256"])) for path, each in manifest["files"].items()}
        signed = datetime.strptime(manifest["signed"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        commit = str(manifest["commit"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _RefusedError(
            f"a manifest of format {FORMAT}", f"no such thing ({error})", "get it from its author"
        ) from None
    if manifest["format"] != FORMAT:
        raise _RefusedError(f"a manifest of format {FORMAT}", f"format {manifest['format']}", "get it from its author")
    return {"commit": commit, "signed": manifest["signed"], "time": signed, "files": files}


def _verified(text: bytes, manifest: Mapping[str, Any], signers: str, revoked: str | None) -> str:
    """Return the signer's name in `signers`. A key counts at the time that the manifest gives, as git has it."""
    at = f"-Overify-time={manifest['time']:%Y%m%d%H%M%S}Z"
    try:
        names = _keygen("find-principals", "-s", SIGNATURE, "-f", signers, at)
    except EqcollapseError:
        found = f"{_fingerprint()}, which is not among them, or was not valid at {manifest['signed']}"
        raise _RefusedError(
            f"a signature by a key of {signers}", found, "ask whose key it is; do not just add it"
        ) from None
    name = names.split("\n")[0]
    revocation = ["-r", revoked] if revoked else []
    try:
        _keygen("verify", "-f", signers, "-I", name, "-n", NAMESPACE, "-s", SIGNATURE, at, *revocation, said=text)
    except EqcollapseError as error:
        expected = f"a manifest as {name} signed it, with a key that still counts"
        raise _RefusedError(expected, str(error), "get manifest and signature from their author anew") from None
    return name


def _differences(manifest: Mapping[str, Any], files: Mapping[str, Content]) -> Iterator[Finding]:
    """Yield what is not as it was signed: the commit, files that changed, went or came."""
    signed: dict[str, tuple[int, str]] = manifest["files"]
    if (head := commits.head()) != manifest["commit"]:
        remedy = f"git checkout {manifest['commit']}"
        yield Finding("signature", "HEAD", f"the signed commit {manifest['commit']}", str(head or "no commit"), remedy)
    for path in sorted(set(commits.changed_files()) - signed.keys()):
        yield Finding("signature", path, "as the signed commit has it", "another content", f"git checkout {path}")
    for path, (size, sha256) in signed.items():
        expected = f"sha256 {sha256[:12]} ({size} bytes), as it was signed"
        if path not in files:
            yield Finding("signature", path, expected, "no such file", "get it from the author, or make it anew")
        elif (files[path].bytes, files[path].sha256) != (size, sha256):
            found = f"sha256 {files[path].sha256[:12]} ({files[path].bytes} bytes)"
            yield Finding("signature", path, expected, found, "get it from the author, or make it anew")
    for path in sorted(files.keys() - signed.keys()):
        yield Finding("signature", path, "no file that is not signed", "a file added after signing", "remove it")


def _with_beside(found: Mapping[str, Content]) -> dict[str, Content]:
    own = {path: each for path, each in found.items() if path not in (MANIFEST, SIGNATURE)}
    return own | {path: content(path) for path in BESIDE if os.path.isfile(path)}


def _fingerprint() -> str:
    """Return the fingerprint of the key that made the signature; its bytes may be anybody's."""
    try:
        told = _keygen("check-novalidate", "-n", NAMESPACE, "-s", SIGNATURE, said=Path(MANIFEST).read_bytes())
    except EqcollapseError:
        return "a key that cannot be read, or that signed something else"
    return told.rsplit(maxsplit=1)[-1]


def _keygen(action: str, *options: str, said: bytes = b"") -> str:
    """Return what `ssh-keygen -Y action` writes; raise EqcollapseError with its own words where it refuses."""
    with tempfile.TemporaryFile() as stream:  # a file: ssh-keygen asks for a passphrase on the terminal, not here
        stream.write(said)
        stream.seek(0)
        try:
            answer = subprocess.run(
                ["ssh-keygen", "-Y", action, *options], stdin=stream, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise EqcollapseError("ssh-keygen is not installed; it comes with OpenSSH 8.2 or newer") from None
    if answer.returncode:
        told = (answer.stderr or answer.stdout).strip().splitlines() or ["no reason given"]
        raise EqcollapseError(f"ssh-keygen: {told[-1].rstrip()}")
    return answer.stdout
