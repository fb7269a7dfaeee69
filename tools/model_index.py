"""Write model-index.yml and the metafiles of the configs: networks, parameters, published results."""

import argparse
import sys
from pathlib import Path

from panet_plugin.catalog.model_index import model_index
from panet_plugin.files import write_bytes

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Parse the command line and write or compare the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check; fail if a file is not up to date")
    args = parser.parse_args()
    texts = model_index(ROOT)
    kept = {path: (ROOT / path).read_text("utf-8") if (ROOT / path).is_file() else None for path in texts}
    stale = [path for path, text in texts.items() if kept[path] != text]
    if args.check and stale:
        sys.exit(f"error: not up to date: {', '.join(stale)}; run python tools/model_index.py")
    for path in stale:
        write_bytes(ROOT / path, texts[path].encode())
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
