"""``panet export`` from a checkout: see :mod:`panet_plugin.commands.export`."""

from panet_plugin.commands.export import main

if __name__ == "__main__":
    main()
