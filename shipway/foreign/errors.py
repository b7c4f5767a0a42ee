"""What another library's exception says, in the words of a person: no class names, tuples or error numbers."""

from __future__ import annotations

import os
import re

_NUMBER = re.compile(r"\[Errno (-?\d+)\]")
_TUPLE = re.compile(r"\s*\(?'[^']*', \d+(?:, \d+, \d+)?\)")  # a socket's address as asyncio prints it


def describe_error(error: BaseException) -> str:
    """Return what an exception says on one line: "Connection refused", "No such file or directory: /etc/x".

    asyncio words its own: "[Errno 111] Connect call failed ('192.0.2.1', 22)", and "Multiple exceptions: ..." where a
    name has several addresses (asyncio/base_events.py, create_connection). What the operating system calls the number
    is said in their place, each once.
    """
    said = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno and error.strerror:
        own = os.strerror(error.errno)
        known = own if "Connect call failed" in error.strerror or own in error.strerror else error.strerror
        files = " to ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{known}: {files}" if files else known
    if isinstance(error, OSError) and (numbers := dict.fromkeys(_NUMBER.findall(said))):
        return ", ".join(os.strerror(int(number)) for number in numbers)
    plain = _TUPLE.sub("", _NUMBER.sub("", said)).strip()
    return plain if plain and plain != "None" else _spell(type(error).__name__)  # Prefect's ObjectNotFound says "None"


def _spell(name: str) -> str:
    """Return a class's name as words: "ConnectionResetError" is "connection reset error"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
