import signal

import pytest


def _hang(*_: object) -> None:
    pytest.fail("hangs")


@pytest.fixture(autouse=True)
def never_hang():
    """An attack may aim at the clock: a pipe without a writer, an endless expansion."""
    previous = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
