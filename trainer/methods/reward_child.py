"""The process that runs a user's reward file: python -I reward_child.py FILE SECONDS, rows in, rewards out.

Standard library only. stdin: [[prompt, answer, reference], …]; stdout: {"rewards": […], "fault": "file:line: what"}.
What the file prints goes to stderr.
"""

import contextlib
import json
import math
import os
import runpy
import signal
import sys
import traceback


class TooLong(BaseException):
    pass


def late(*_):
    raise TooLong


def main() -> None:
    path, seconds = sys.argv[1], int(sys.argv[2])
    rows, rewards, fault = json.load(sys.stdin), [], ""
    signal.signal(signal.SIGALRM, late)
    sys.path.insert(0, os.path.dirname(path))  # modules of the user's beside the file
    with contextlib.redirect_stdout(sys.stderr):
        try:
            function = runpy.run_path(path)["reward"]
        except KeyError:
            function, fault = None, f"{path}: has no function reward(prompt, answer, reference)"
        except BaseException as error:
            function, fault = None, told(path, error)
        for row in rows:
            value = None
            if function:
                signal.alarm(seconds)
                try:
                    value = float(function(*row))
                    if not math.isfinite(value):
                        value, fault = None, fault or f"{path}: reward is {value}"
                except TooLong:
                    fault = fault or f"{path}: reward took more than {seconds} s for one answer"
                except BaseException as error:
                    fault = fault or told(path, error)
                finally:
                    signal.alarm(0)
            rewards.append(value)
    sys.stdout.write(json.dumps({"rewards": rewards, "fault": fault}))


def told(path: str, error: BaseException) -> str:
    """file:line: the last line of the user's file that the error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = lines[-1] if lines else getattr(error, "lineno", None) or 1
    return f"{path}:{line}: {type(error).__name__}: {' '.join(str(error).split())[:160]}"


main()
