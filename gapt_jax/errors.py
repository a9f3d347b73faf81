"""What a command tells its user: one clear sentence and an exit code, never a traceback."""


class UserError(Exception):
    """Bad input. The message is one sentence that says what is wrong and what to do; the command exits with 2."""


class TrainingStopped(Exception):
    """Training stopped with its last good checkpoint intact; the message names the cause. Exit code 3."""


class Preempted(Exception):
    """The machine is being taken away; all is saved, and the same command goes on from there."""


class Interrupted(Preempted):
    """The user pressed Ctrl-C; all is saved, as for `Preempted`."""
