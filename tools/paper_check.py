"""``panet paper-check`` from a checkout: see :mod:`panet_plugin.commands.paper_check`."""

from panet_plugin.commands.paper_check import main

if __name__ == "__main__":
    main()
