"""The blocks of a page of documentation, applied to a copy of the project as the page says that a reader is to."""

import re
from collections.abc import Iterator

import yaml

from projects import Project


def sections(page: str) -> Iterator[tuple[str, str]]:
    """Yield the page's sections: heading and text."""
    for part in page.split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        yield heading, text


def extend(project: Project, text: str) -> None:
    """Apply the blocks of `text`, whose first line names a file: a diff, settings, or what goes to the file's end."""
    for language, block in re.findall(r"```(python|diff|yaml)\n(.*?)```", text, flags=re.DOTALL):
        first, _, body = block.partition("\n")
        file = first.removeprefix("# ").removeprefix("--- ")
        path = project.folder / file
        if language == "yaml":
            project.edit(yaml.safe_load(body), path)
        elif language == "diff":
            path.write_text(patched(path.read_text(), body, file))
        else:
            before = f"{path.read_text()}\n\n" if path.exists() else ""
            path.write_text(before + body)


def patched(content: str, diff: str, file: str) -> str:
    """Return `content` with each hunk of `diff` applied where its old lines stand, which must be one place."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines()
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != other) for other in "+-")
        assert content.count(old) == 1, f"{file} has this {content.count(old)} times, not once:\n{old}"
        content = content.replace(old, new)
    return content
