# usage: run_keystone.py CONFIG DATABASE PORT USER PASSWORD PROJECT REGION
# Makes Keystone's keys and database, with one user, and serves its API.
import os
import sqlite3
import sys
from wsgiref import simple_server

config, database, port, user, password, project, region = sys.argv[1:]
url = "http://127.0.0.1:%s/v3" % port
os.environ["OS_KEYSTONE_CONFIG_FILES"] = config


def manage(*arguments):
    """Runs keystone-manage in a child of this process and waits for it."""
    child = os.fork()
    if child == 0:
        from keystone.cmd.cli import main

        argv = ["keystone-manage", "--config-file", config, *arguments]
        sys.exit(main(argv))
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit("keystone-manage %s failed" % arguments[0])


child = os.fork()
if child == 0:
    # Loaded once for all.
    import keystone.cmd.cli

    me = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    manage("fernet_setup", *me)
    manage("db_sync")
    manage(
        "bootstrap",
        "--bootstrap-username", user,
        "--bootstrap-password", password,
        "--bootstrap-project-name", project,
        "--bootstrap-region-id", region,
        "--bootstrap-admin-url", url,
        "--bootstrap-public-url", url,
    )
    # Else Keystone's readers of an SQLite database lock out its writers.
    sqlite3.connect(database).execute("PRAGMA journal_mode=WAL").close()
    os._exit(0)

from keystone.server import wsgi

_, status = os.waitpid(child, 0)
if status != 0:
    sys.exit("keystone could not be set up")
sys.argv[1:] = ["--config-file", config]
app = wsgi.initialize_public_application()


class Handler(simple_server.WSGIRequestHandler):
    # Seconds a client may keep the others waiting.
    timeout = 10


simple_server.make_server("127.0.0.1", int(port), app, handler_class=Handler).serve_forever()
