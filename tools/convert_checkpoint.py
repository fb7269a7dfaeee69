"""``panet convert`` from a checkout: see :mod:`panet_plugin.commands.convert_checkpoint`."""

from panet_plugin.commands.convert_checkpoint import main

if __name__ == "__main__":
    main()
