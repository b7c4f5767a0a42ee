"""YAML that somebody else wrote, read without a crash: whatever is wrong with it is one kind of error."""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """Give a YAML text's data; raises ValueError for a text that has none.

    PyYAML itself raises four kinds: its own, ValueError for a date that there is not, TypeError for a key that cannot
    be one, RecursionError for what is nested too deeply.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError) as error:
        raise ValueError(f"not YAML ({type(error).__name__})") from None  # the cause would quote what may be secret
