"""A real S3 server on loopback: moto's, in a process of its own, which keeps objects in memory."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from uuid import uuid4

_SERVE = """
import logging, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

# moto checks a condition and writes in two steps, between which another request could write.
conditional, dispatch = threading.Lock(), DomainDispatcherApplication.__call__

def dispatch_conditional_alone(app, environ, start_response):
    if environ.keys().isdisjoint({"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}):
        return dispatch(app, environ, start_response)
    with conditional:
        return dispatch(app, environ, start_response)

DomainDispatcherApplication.__call__ = dispatch_conditional_alone
logging.disable(logging.CRITICAL)
server = ThreadedMotoServer(sys.argv[1], 0, verbose=False)
server.start()
print("listening", server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    """A running server, whose buckets tests access with Amazon's own client, bypassing the store."""

    def __init__(self, host: str, port: int, pid: int | None = None):
        self.pid = pid
        self.url = f"http://{host}:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @cached_property
    def client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106 - the server accepts any
            region_name="us-east-1",
        )

    def make_bucket(self) -> str:
        name = f"bucket-{uuid4()}"
        self.client.create_bucket(Bucket=name)
        return name

    def plant(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def plant_folder(self, bucket: str, prefix: str, folder: Path) -> None:
        """Create an object below a prefix for each file below a folder."""
        _ = self.client  # create it here: several threads must not do so at once
        files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.plant(bucket, f"{prefix}/{name}", files[name].read_bytes()), files))

    def contents(self, bucket: str) -> dict[str, bytes]:
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in self.keys(bucket)}

    def keys(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def content_type(self, bucket: str, key: str) -> str:
        return self.client.head_object(Bucket=bucket, Key=key)["ContentType"]


@contextmanager
def s3_server(host: str = "127.0.0.1"):
    """Run a server at an address of this machine until the block ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, host], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            port = next(int(line.split()[1]) for line in process.stdout if line.startswith("listening"))
            yield S3Server(host, port)
        finally:
            process.kill()
