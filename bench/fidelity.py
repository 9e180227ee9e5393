"""The divergence of decoded targets from exact ones, for any encoding."""

import numpy as np
import rivals

from logitcask.schemas.format.targets import Targets


def divergence(exact: Targets, decoded: rivals.Decoded) -> np.ndarray:
    """KL(exact ‖ decoded) of each row's k + 1 buckets in nats, [T]; both sides sum to one."""
    offsets = exact.head_offsets
    assert np.array_equal(decoded.offsets, offsets), "an entry was lost"
    row = np.repeat(np.arange(exact.num_positions), exact.head_widths())
    order = np.lexsort((decoded.ids, row))
    assert np.array_equal(decoded.ids[order], exact.head_ids), "an id changed"
    found_head = decoded.log_probs[order].astype(np.float64)
    found_tail = derived_tail(found_head, offsets) if decoded.log_tail is None else decoded.log_tail
    p_head, p_tail = renormalized(exact.head_log_probs, exact.log_tail, offsets)
    q_head, q_tail = renormalized(found_head, found_tail, offsets)
    has_tail = np.isfinite(p_tail)
    tail = np.zeros_like(p_tail)
    tail[has_tail] = np.exp(p_tail[has_tail]) * (p_tail - q_tail)[has_tail]
    return np.add.reduceat(np.exp(p_head) * (p_head - q_head), offsets[:-1]) + tail


def derived_tail(head: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(1 - np.add.reduceat(np.exp(head), offsets[:-1]), rivals.SMALLEST_TAIL))


def renormalized(head: np.ndarray, tail: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    head, tail = head.astype(np.float64), tail.astype(np.float64)
    log_mass = np.log(np.add.reduceat(np.exp(head), offsets[:-1]) + np.exp(tail))
    return head - np.repeat(log_mass, np.diff(offsets)), tail - log_mass
