"""``panet test`` from a checkout: see :mod:`panet_plugin.commands.test`."""

from panet_plugin.commands.test import main

if __name__ == "__main__":
    main()
