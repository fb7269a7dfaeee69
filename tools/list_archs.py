"""Test pyramid attention in every image-to-image arch of BasicSR and MMagic, and write the tables of docs/archs.md."""

import argparse
from pathlib import Path

from panet_plugin.catalog.arch_table import EXAMPLES, check, table
from panet_plugin.files import write_bytes

DOCS = Path(__file__).parents[1] / "docs" / "archs.md"


def main() -> None:
    """Parse the command line, check every arch and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS, help="file whose tables are replaced; default: %(default)s")
    args = parser.parse_args()
    for example in EXAMPLES:
        print(f"{example.framework} {example.arch}: {check(example)} places")
    text = args.out.read_text(encoding="utf-8")
    write_bytes(args.out, (text[: text.index("| framework")] + table()).encode())


if __name__ == "__main__":
    main()
