"""``panet compare`` from a checkout: see :mod:`panet_plugin.commands.compare`."""

from panet_plugin.commands.compare import main

if __name__ == "__main__":
    main()
