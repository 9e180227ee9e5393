from logitcask.schemas.stats.compute_cost import cost_of_unit
from logitcask.schemas.stats.sum_by_key import sum_by_key


def test_costs_add_up_by_device_to_the_millisecond():
    units = [
        cost_of_unit(10, {"device": {"model": "x"}}, {"score_seconds": 1.2345, "ended_at": "now"}),
        cost_of_unit(20, {"device": {"model": "x"}}, {"score_seconds": 0.1, "read_seconds": 2}),
        cost_of_unit(30, {"device": {"model": "y"}}, {"score_seconds": 4.0}),
    ]
    merged = sum_by_key(units)
    assert merged == sum_by_key(reversed(units))
    assert merged["x"].milliseconds == {"finish": 0, "forward": 1334, "read": 2000, "score": 1334}
    assert (merged["x"].num_units, merged["x"].num_positions, merged["y"].seconds("score")) == (2, 30, 4.0)


def test_a_rebuilt_record_has_no_cost():
    assert cost_of_unit(10, {"note": "rebuilt"}, {}) == {}
    assert cost_of_unit(10, {}, {"score_seconds": 1.0}) == {}


def test_time_within_a_phase_is_not_counted_twice():
    timings = {"read_seconds": 1.0, "score_seconds": 8.0, "forward_seconds": 6.0, "encode_seconds": 5.0}
    (cost,) = cost_of_unit(10, {"device": {"model": "x"}}, {**timings, "finish_seconds": 0.5}).values()
    assert (cost.worker_seconds, cost.seconds("forward")) == (9.5, 6.0)


def test_timings_of_the_first_release_keep_their_meaning():
    (cost,) = cost_of_unit(10, {"device": {"model": "x"}}, {"score_seconds": 8.0, "encode_seconds": 1.0}).values()
    assert (cost.worker_seconds, cost.seconds("forward")) == (9.0, 8.0)
