"""Servers in processes of their own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit


class Running:
    """A server process: its address, and all that it has said."""

    def __init__(self, process, kind, url, said):
        self.process, self.kind, self.url, self.said = process, kind, url, said
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port

    def connect(self):
        return socket.create_connection((self.host, self.port), 10)

    def ask(self, head, body=b""):
        """(status, everything) of the answer to bytes on a connection of their own."""
        with self.connect() as connection:
            with contextlib.suppress(OSError):  # it may be refused before it is all sent
                connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + body)
            return answer_of(connection)

    def end(self, number):
        """(exit code, what it said) of the process after a signal."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.reader.join(10)
        return code, "".join(self.said)


def answer_of(connection):
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            found += part
    return (int(found.split()[1]) if found else None), found.decode("latin-1")


def _hears_interrupts():
    """A shell's background job, as which the tests may run, ignores SIGINT and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def running(*command, files=None, program=None):
    """``gapt`` with a command that serves, on a free port; `files`: the limit of open files; `program`: Python that
    runs it."""
    start = ["-c", program] if program else ["-m", "gapt_jax"]
    whole = [sys.executable, *start, *map(str, command), "--port", "0"]
    if files:
        script = f'ulimit -S -n {files // 2}; ulimit -H -n {files}; exec "$@"'
        whole = ["bash", "-c", script, "-", *whole]
    process = subprocess.Popen(
        whole,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"XLA_FLAGS": ""},
        preexec_fn=_hears_interrupts,
    )
    said = []
    try:
        url = None
        for line in process.stdout:
            said.append(line)
            url = url or ((match := re.search(r"http://[\w.:\[\]]+:\d+", line)) and match.group())
            if "connections at a time" in line:
                break
        assert url and process.poll() is None, "".join(said)
        found = Running(process, command[0], url, said)
        found.reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
        found.reader.start()
        yield found
    finally:
        process.kill()
        process.wait()
