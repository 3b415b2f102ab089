"""What a user can mend, as one kind of error."""


class LmmVqaError(Exception):
    """Something that the user can mend: the message names it and the remedy.

    The command line shows such an error as its message. Any other error is a fault of ours, or of a library, and keeps
    its trace.
    """


class SettingError(LmmVqaError, ValueError):
    """A setting that is unknown, or that can't have this value. The message names it and what to use."""


class InputError(LmmVqaError, ValueError):
    """An option or a file can't be used as it is given. The message names it and the remedy."""


class SetupError(LmmVqaError, RuntimeError):
    """What the work needs is not installed, or does not work on this machine. The message names the remedy."""
