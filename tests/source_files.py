"""What the tests of data sources share."""

import pytest

from srcli.errors import DataError


def keys(source):
    """List the names of all images."""
    return [source.key(index) for index in range(len(source))]


def refusal(call, kind=DataError):
    """Return the message that a call is refused with; it must be one line."""
    with pytest.raises(kind) as error:
        call()
    assert str(error.value).isprintable()
    return str(error.value)
