"""``panet check-gpu`` from a checkout: see :mod:`panet_plugin.commands.check_gpu`."""

from panet_plugin.commands.check_gpu import main

if __name__ == "__main__":
    main()
