"""A tool of whose processes the second is killed in the midst of its work; the first does not wait for it.

Started in the environment that srun sets, with TOOL=restore or compare: killed.py ARGUMENTS
"""

import os
import runpy
import signal

from panet_plugin import ranks
from panet_plugin.inference.restorer import Restorer
from panet_plugin.ranks import Rank

if Rank.of().number:
    runs = []
    restore_parts, restore = Restorer.restore_parts, Restorer.restore

    def dying(method):
        def run(*args, **options):
            runs.append(method)
            if len(runs) == (2 if method is restore_parts else 1):
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*args, **options)

        return run

    Restorer.restore_parts, Restorer.restore = dying(restore_parts), dying(restore)
else:
    ranks.Group.gather.__defaults__ = (0,)
runpy.run_path(f"tools/{os.environ.get('TOOL', 'restore')}.py", run_name="__main__")
