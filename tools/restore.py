"""``panet restore`` from a checkout: see :mod:`panet_plugin.commands.restore`."""

from panet_plugin.commands.restore import main

if __name__ == "__main__":
    main()
