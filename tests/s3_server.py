"""An S3 server on this machine, for tests: `with s3_server(monkeypatch) as client`. moto's, reached as any S3 through AWS_ENDPOINT_URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch, bucket: str = "logs") -> Iterator[Any]:
    """A client of a server that holds one empty bucket; child processes inherit the address too."""
    import boto3
    from moto.server import ThreadedMotoServer

    from dmoe.storage.paths import PATHS

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    handler = PATHS.handler("s3://")
    handler.__dict__.pop("client", None)
    try:
        client = boto3.Session().client("s3")
        client.create_bucket(Bucket=bucket)
        yield client
    finally:
        handler.__dict__.pop("client", None)
        server.stop()
