"""``panet train`` from a checkout: see :mod:`panet_plugin.commands.train`."""

from panet_plugin.commands.train import main

if __name__ == "__main__":
    main()
