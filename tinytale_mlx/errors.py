"""The one exception whose message is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user can mend. The CLI prints the message, one sentence, on stderr and exits with 2."""
