"""A PostgreSQL server as Debian ships it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

USER = "postgres"  # the server refuses to run as root


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of an empty database."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = Path(tempfile.mkdtemp(prefix="tocsin-postgres-"))  # not below a folder of root's
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
        as_user = ["runuser", "-u", USER, "--"]

    def run(program: str, *words: str) -> None:
        command = [*as_user, str(binaries / program), *words]
        subprocess.run(command, check=True, cwd=folder, capture_output=program != "pg_ctl", timeout=120)

    run("initdb", "-D", f"{folder}/data", "-U", USER, "-A", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    run("pg_ctl", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
    try:
        yield f"postgresql+psycopg://{USER}@/{USER}?host={folder}"
    finally:
        run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
        shutil.rmtree(folder)
