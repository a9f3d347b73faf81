"""Ctrl-C in a process of its own: once it saves, twice it ends at once."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from gapt_jax.errors import Interrupted
from gapt_jax.runtime import hosts
try:
    with hosts.saving_on_interrupt():
        print("ready", flush=True)
        for step in range(600):
            time.sleep(0.1)
            if ASKS and hosts.should_stop():
                print("saved", flush=True)
                raise hosts.Preempted(f"preempted at step {step}")
except Interrupted as news:
    print(news)
    sys.exit(130)
"""


@pytest.mark.parametrize(("interrupts", "code", "said"), [(1, 130, "saved\nstopped at step"), (2, -signal.SIGINT, "")])
def test_the_first_saves_and_the_second_ends_at_once(interrupts, code, said):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and so would its children
    program = PROGRAM.replace("ASKS", str(interrupts == 1))
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    lines = [process.stderr.readline(), process.stderr.readline()]
    assert any("Ctrl-C again stops at once" in line for line in lines)
    if interrupts == 2:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and out.startswith(said) and "Traceback" not in err
