"""The one error type for a person's mistake; every room raises it, the screen shows it as one line."""


class UserError(Exception):
    """What is wrong, where (file:line or field) and what to do next, in one line. Ends with status 2."""
