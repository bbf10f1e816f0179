from bench.metrics import Metric, Reading, at_least, read
from bench.rows import METRICS
from bench.turns import sessions

A, B, C, PEER = (read(name, "per_s") for name in ("limits.a", "limits.b", "limits.c", "peers.p"))


def metric(row: int, ours: Reading, *others: Reading) -> Metric:
    return Metric(row, "metric", "x", ours, (at_least(1, *others),))


def test_rows_that_share_a_program_take_turns_with_each_other() -> None:
    groups = sessions([metric(1, A, PEER), metric(2, B), metric(3, C, PEER)], peers=True)
    assert groups == [[B.program], [A.program, PEER.program, C.program]]


def test_without_peers_rows_that_share_only_those_are_apart() -> None:
    groups = sessions([metric(1, A, PEER), metric(3, C, PEER)], peers=False)
    assert groups == [[A.program], [C.program]]


def test_every_program_of_the_table_runs_in_exactly_one_group() -> None:
    ran = [each for group in sessions(METRICS, peers=True) for each in group]
    assert len(ran) == len(set(ran))
    assert set(ran) == {r.program for each in METRICS for r in each.readings()}
