"""The versions that shape bytes: of this project, and of the packages that it stands on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def project_version() -> str:
    """Return the version of this project, as it is installed; a folder on PYTHONPATH has none."""
    return package_version("pipeline")


def package_version(name: str) -> str:
    """Return the version of an installed package; `none` if it is not installed as one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
