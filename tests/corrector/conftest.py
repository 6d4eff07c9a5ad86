"""Fixtures of the corrector's tests."""

import pytest

from tests.corrector.chat_server import Faulty


@pytest.fixture
def faulty(monkeypatch):
    """`faulty(script)` starts a server (see Faulty); all are stopped at the end."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = []

    def start(script):
        running.append(Faulty(script))
        return running[-1]

    yield start
    for server in running:
        server.stop()
