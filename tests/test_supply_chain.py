"""What is installed beside pyipc, and why: nothing that nobody has said, and node-ipc as it was reviewed."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.conftest import NODE_IPC_VERSIONS, ROOT


def packages(requirements: list[str]) -> list[str]:
    return sorted(re.split(r"[^\w-]", requirement)[0] for requirement in requirements)


def explained(page: str, section: str) -> list[str]:
    """The packages that a section of the page on dependencies gives a reason for."""
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return sorted(re.findall(r"^\| (?:`\w+` \| )?([a-z]\w+) \| ", text, re.MULTILINE))


def test_each_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    page = (ROOT / "docs" / "explanation" / "dependencies.md").read_text("utf-8")
    assert packages(project["dependencies"]) == explained(page, "Always installed")
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    assert packages(extras) == explained(page, "Optional")


@pytest.mark.parametrize("version", NODE_IPC_VERSIONS)
def test_node_ipc_is_the_release_that_was_reviewed_and_runs_nothing_when_it_is_installed(version: str) -> None:
    script = (ROOT / "run").read_text("utf-8")
    assert re.search(rf"^ +node_ipc {re.escape(version)} sha512-[\w+/]{{86}}==$", script, re.MULTILINE)
    installations = re.findall(r"npm install .*", script)
    assert len(installations) == 1
    assert "--ignore-scripts" in installations[0]
    assert '"node-ipc@$version"' in installations[0]
