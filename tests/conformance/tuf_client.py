"""The updater's trust, in the command-line protocol of theupdateframework's tuf-conformance suite.

```
tuf_client.py --metadata-dir DIR init TRUSTED_ROOT
tuf_client.py --metadata-dir DIR --metadata-url URL refresh
tuf_client.py --metadata-dir DIR --metadata-url URL --target-name NAME --target-dir DIR --target-base-url URL download
```
Ends with 0, or with 1 where it refuses. Run the suite against it, in an environment that has both:
`pytest tuf_conformance --entrypoint "python tests/conformance/tuf_client.py"`.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import quote

from tocsin.errors import TocsinError
from tocsin.update.fetch import Fetcher
from tocsin.update.trust import Repository


def main(words: list[str]) -> int:
    """Does one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name")
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    given = parser.parse_args(words)
    if given.command == "init":
        given.metadata_dir.mkdir(parents=True, exist_ok=True)
        shutil.copy(given.trusted_root, given.metadata_dir / "root.json")
        return 0
    try:
        trusted = (given.metadata_dir / "root.json").read_bytes()
        repository = Repository(given.metadata_url, given.metadata_dir, trusted, time.time(), Fetcher(),
                                metadata_url=given.metadata_url, targets_url=given.target_base_url)  # fmt: skip
        repository.refresh()
        if given.command == "download":
            target = repository.info(given.target_name)
            if target is None:
                sys.stderr.write(f"no target {given.target_name}\n")
                return 1
            given.target_dir.mkdir(parents=True, exist_ok=True)
            repository.download(target, given.target_dir / quote(given.target_name, ""))
    except (TocsinError, OSError) as error:
        sys.stderr.write(f"refused: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
