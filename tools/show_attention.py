"""``panet show-attention`` from a checkout: see :mod:`panet_plugin.commands.show_attention`."""

from panet_plugin.commands.show_attention import main

if __name__ == "__main__":
    main()
