"""Upload models/<version> with its card to the Hugging Face Hub, private unless --public. Shows what it would send;
--yes sends. The token is that of `hf auth login`, or HF_TOKEN; it is written nowhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import ROOT, read_config

parser = argparse.ArgumentParser()
parser.add_argument("repo", help="owner/name")
parser.add_argument("--config", type=Path)
parser.add_argument("--public", action="store_true")
parser.add_argument("--yes", action="store_true", help="really upload")
given = parser.parse_args()
config = read_config()
weights = ROOT / "models" / config["version"] / ("adapter" if config["peft"] else "model")
files = {path: path.name for path in sorted(weights.iterdir()) if path.is_file() and path.name != "README.md"}
files[ROOT / "hf_cards" / f"{config['version']}.md"] = "README.md"
for path, name in files.items():
    print(f"{path.relative_to(ROOT)} → {given.repo}/{name} ({path.stat().st_size:,} bytes)")
if not given.yes:
    print(
        f"nothing was sent; --yes creates the {'public' if given.public else 'private'} repository and sends them"
    )
else:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    api.create_repo(given.repo, private=not given.public, exist_ok=True)
    api.create_commit(
        given.repo,
        [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for path, name in files.items()],
        commit_message=config["version"],
    )
    api.create_tag(given.repo, tag=config["version"], exist_ok=True)
    print(f"https://huggingface.co/{given.repo}")
