# usage: run_glance.py CONFIG DATABASE
# Makes Glance's database unless it is there, and runs its API.
import os
import sys

arguments = ["--config-file", sys.argv[1]]

# In a process of its own, while this one loads the API: both take long.
child = None
if not os.path.exists(sys.argv[2]):
    child = os.fork()
if child == 0:
    from glance.cmd.manage import main

    sys.argv[1:] = arguments + ["db_sync"]
    sys.exit(main())

from glance.cmd.api import main

if child and os.waitpid(child, 0)[1] != 0:
    sys.exit("glance-manage db_sync failed")
sys.argv[1:] = arguments
main()
