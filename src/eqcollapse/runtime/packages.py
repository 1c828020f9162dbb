"""Which version of a package is installed."""

from importlib import metadata


def installed_version(package: str) -> str | None:
    """Return the version of `package`, by its name on PyPI; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
