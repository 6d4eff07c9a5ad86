"""A sweep takes a server as upstream as the loop does."""

import pytest

from corrector.errors import UserError
from corrector.servers.endpoint import Traffic
from corrector.upstreams import Served, ServerUpstream
from steering.sweeping.plan import Sweep
from steering.sweeping.work import equip, prepare

SMALL = dict(task=("arithmetic",), corrector="arithmetic-s", items=2, problems=2, validation=2, seed=3)


def test_a_sweep_hands_its_server_to_the_loop():
    where, traffic = Served("http://127.0.0.1:1/v1", "m", template="lab"), Traffic(concurrency=3)
    config = Sweep(upstream="server", upstream_server=where, traffic=traffic, temperature=0.5, **SMALL)
    work = prepare(config, "arithmetic")
    again = equip(config, work.task, work.pairs, work.loops)
    for upstream in (work.upstream, again.upstream):
        assert isinstance(upstream, ServerUpstream)
        assert (upstream.served, upstream.traffic, upstream.temperature, upstream.seed) == (where, traffic, 0.5, 3)
        assert upstream.template.name == "lab"
    with pytest.raises(UserError, match=r"--upstream-server.url='' is no http url"):
        prepare(Sweep(upstream="server", **SMALL), "arithmetic")
