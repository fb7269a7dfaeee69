"""``panet ablate`` from a checkout: see :mod:`panet_plugin.commands.ablate`."""

from panet_plugin.commands.ablate import main

if __name__ == "__main__":
    main()
