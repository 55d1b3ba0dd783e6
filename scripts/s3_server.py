#!/usr/bin/env python3
"""An S3 server for tests: moto, one request at a time. Started by `env::S3Server`; docs/0016-s3.md says why.

usage: s3_server.py BUCKET...

Listens on a free port of the loopback interface and prints it in a line of its own. Holds everything in memory, and ends
when its standard input does, so that it does not outlive the test that started it. Takes any key.
"""

import logging
import os
import sys
import threading
from io import BytesIO

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server


class OneAtATime:
    """moto looks whether a key is there and then stores it; between the two another thread may store it as well."""

    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        # A slow client keeps nobody else waiting.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        with self.lock:
            return list(self.app(environ, start_response))


def end_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for bucket in sys.argv[1:]:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(bucket, "us-east-1")
    app = OneAtATime(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    print(server.port, flush=True)
    server.serve_forever()


main()
