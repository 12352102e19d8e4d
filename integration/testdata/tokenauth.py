# Lets in who knows the one token, GLANCE_TOKEN, in place of a Keystone.
import os


def factory(global_conf, **local_conf):
    token = os.environ["GLANCE_TOKEN"]

    def wrap(app):
        def call(env, start):
            if env.get("HTTP_X_AUTH_TOKEN") != token:
                start("401 Unauthorized", [("Content-Type", "text/plain"), ("Content-Length", "0")])
                return []
            env.update(
                HTTP_X_IDENTITY_STATUS="Confirmed",
                HTTP_X_USER_ID="tester",
                HTTP_X_PROJECT_ID="images",
                HTTP_X_TENANT_ID="images",
                HTTP_X_ROLES="member,reader",
            )
            return app(env, start)

        return call

    return wrap
