"""A cost plan as JSON: storage, hours and money for a teacher, a student, a corpus and prices."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from logitcask.pipeline.planner import formulas
from logitcask.pipeline.planner.model_shapes import ModelShape
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.format.scheme import (
    RandomSamplingScheme,
    Scheme,
    ThresholdSamplingScheme,
    ThresholdScheme,
    TopKScheme,
)
from logitcask.schemas.stats import expected_bytes

SCHEMA = "logitcask.plan/1"
_SECONDS_PER_HOUR = 3600
_BYTES_PER_GB = 1e9
# Shown for comparison with the chosen scheme.
_ALTERNATIVES = (
    ThresholdScheme(),
    ThresholdScheme(tau=1e-2),
    TopKScheme(k=64),
    TopKScheme(k=128),
    RandomSamplingScheme(),
    ThresholdSamplingScheme(),
)
NOTES = {
    "forward_flop": "2·(N + V·d) + 4·h·hd·keys per layer, mean keys (S + 1)/2 (Kaplan et al. 2020, section 2.1)",
    "training_flop": "three forward passes (Kaplan et al. 2020, section 2.1)",
    "utilisation": "MFU as stated, not measured (Chowdhery et al. 2022, appendix B)",
    "peak": "dense bfloat16 FLOP/s of the data sheet",
    "bytes_per_token": f"{expected_bytes.BYTES_SOURCE}. {expected_bytes.ENTRIES_SOURCE}",
    "layout": expected_bytes.LAYOUT_SOURCE,
    "dense": "every logit in bfloat16; raw top-k: 32 bits an entry, uncompressed",
    "optimal": "20 tokens a parameter (Hoffmann et al. 2022); assumes the student trains once over the corpus",
    "break_even": "passes n with T + S + n·R < n·T: teacher T, storage S, reading R; students cost the same either way",
    "prices": "from flags; the defaults are assumptions in US dollars: look up the current ones",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Prices in one currency.

    Attributes:
        gpu_hour: Price of an hour of one GPU.
        gb_month: Price of a GB (1e9 bytes) in an object store for a month.
        gb_read: Price of moving a GB from the store to the students; 0 inside one region.
        thousand_writes: Price of a thousand put requests.
    """

    gpu_hour: float = 2.5
    gb_month: float = 0.023
    gb_read: float = 0.0
    thousand_writes: float = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The job to plan.

    Attributes:
        teacher, student: Their shapes.
        num_tokens: Tokens of the corpus.
        window_tokens: Positions of a window.
        scheme: What is stored.
        bytes_per_token: Overrides the expected bytes, for example with those of a first dataset.
        gpu: Displayed name of the GPU.
        peak_flop_per_second: Peak of one GPU.
        teacher_utilization, student_utilization: MFU.
        teacher_gpus, student_gpus: Number of GPUs.
        shard_tokens: Positions of a shard.
        months: How long the shards are kept.
        teacher_tokens_per_second: Measured speed of one device; overrides the computed one.
    """

    teacher: ModelShape
    student: ModelShape
    num_tokens: float
    window_tokens: int
    scheme: Scheme
    gpu: str
    peak_flop_per_second: float
    teacher_utilization: float
    student_utilization: float
    teacher_gpus: int
    student_gpus: int
    shard_tokens: int
    months: float
    bytes_per_token: float | None = None
    teacher_tokens_per_second: float | None = None


def make_plan(job: Job, prices: Prices) -> dict[str, Any]:
    """The plan as JSON; docs/plan-json.md explains every key."""
    bytes_per_token = job.bytes_per_token or expected_bytes.bytes_per_token(job.scheme)
    dense_bytes = formulas.dense_bytes_per_token(job.teacher.vocab_size) * job.num_tokens
    teacher = _teacher(job, prices)
    storage = _storage(job, prices, bytes_per_token)
    student = _student(job, bytes_per_token)
    return {
        "schema": SCHEMA,
        "tokens": job.num_tokens,
        "window_tokens": job.window_tokens,
        "scheme": job.scheme.to_json(),
        "teacher": teacher,
        "storage": storage,
        "student": student,
        "break_even": _break_even(teacher["cost"], storage),
        "schemes": [_alternative(scheme, job.num_tokens) for scheme in _ALTERNATIVES],
        "dense_bytes": dense_bytes,
        "raw_top_128_bytes": formulas.raw_top_k_bytes_per_token(128) * job.num_tokens,
        "dense_cost_per_month": _gigabytes(dense_bytes) * prices.gb_month,
        "prices": asdict(prices),
        "notes": NOTES,
    }


def _teacher(job: Job, prices: Prices) -> dict[str, Any]:
    rate = _teacher_rate(job)
    hours = job.num_tokens / rate / _SECONDS_PER_HOUR
    return {
        "name": job.teacher.name,
        "non_embedding_parameters": job.teacher.non_embedding_parameters,
        "vocab_size": job.teacher.vocab_size,
        "flop_per_token": formulas.forward_flop_per_token(job.teacher, job.window_tokens),
        "rate_is": "measured" if job.teacher_tokens_per_second else "computed",
        "tokens_per_second_per_gpu": rate,
        "gpu": job.gpu,
        "utilisation": None if job.teacher_tokens_per_second else job.teacher_utilization,
        "gpus": job.teacher_gpus,
        "gpu_hours": hours,
        "days": hours / job.teacher_gpus / 24,
        "cost": hours * prices.gpu_hour,
    }


def _storage(job: Job, prices: Prices, bytes_per_token: float) -> dict[str, Any]:
    size = bytes_per_token * job.num_tokens
    shards = -(-job.num_tokens // job.shard_tokens)
    return {
        "bytes_per_token": bytes_per_token,
        "bytes_per_token_is": "given" if job.bytes_per_token else "expected",
        "bytes": size,
        "shards": shards,
        # Two requests for each shard: itself and its record.
        "write_cost": 2 * shards / 1000 * prices.thousand_writes,
        "months": job.months,
        "keep_cost": _gigabytes(size) * prices.gb_month * job.months,
        "read_cost_per_pass": _gigabytes(size) * prices.gb_read,
        "write_bytes_per_second": size / (job.num_tokens / (_teacher_rate(job) * job.teacher_gpus)),
    }


def _teacher_rate(job: Job) -> float:
    """Tokens a second of one of the teacher's GPUs."""
    return job.teacher_tokens_per_second or formulas.tokens_per_second(
        formulas.forward_flop_per_token(job.teacher, job.window_tokens),
        num_gpus=1,
        peak_flop_per_second=job.peak_flop_per_second,
        utilization=job.teacher_utilization,
    )


def _student(job: Job, bytes_per_token: float) -> dict[str, Any]:
    flop = formulas.training_flop_per_token(job.student, job.window_tokens)
    rate = formulas.tokens_per_second(
        flop,
        num_gpus=job.student_gpus,
        peak_flop_per_second=job.peak_flop_per_second,
        utilization=job.student_utilization,
    )
    return {
        "name": job.student.name,
        "non_embedding_parameters": job.student.non_embedding_parameters,
        "parameters": job.student.parameters,
        "flop_per_token": flop,
        "gpus": job.student_gpus,
        "utilisation": job.student_utilization,
        "tokens_per_second": rate,
        "read_bytes_per_second": rate * bytes_per_token,
        "days_per_pass": job.num_tokens / rate / _SECONDS_PER_HOUR / 24,
        "optimal_multiple": formulas.optimal_multiple(job.num_tokens, job.student.parameters),
        "optimal_multiple_non_embedding": formulas.optimal_multiple(
            job.num_tokens, job.student.non_embedding_parameters
        ),
    }


def _break_even(teacher_cost: float, storage: Mapping[str, Any]) -> dict[str, Any]:
    kept = storage["write_cost"] + storage["keep_cost"]
    passes = formulas.passes_to_break_even(teacher_cost, kept, storage["read_cost_per_pass"])
    return {
        "passes": passes if passes < float("inf") else None,
        "live_teacher_cost_per_pass": teacher_cost,
        "cached_cost_once": teacher_cost + kept,
        "cached_cost_per_pass": storage["read_cost_per_pass"],
    }


def _alternative(scheme: Scheme, num_tokens: float) -> dict[str, Any]:
    per_token = expected_bytes.bytes_per_token(scheme)
    return {
        "scheme": scheme.to_json(),
        "entries_per_token": expected_bytes.entries_per_token(scheme),
        "training_bytes_per_token": expected_bytes.training_bytes_per_token(scheme),
        "bytes_per_token": per_token,
        "bytes": per_token * num_tokens,
    }


def _gigabytes(size_bytes: float) -> float:
    return size_bytes / _BYTES_PER_GB


def against(plan: Mapping[str, Any], snapshot: Snapshot) -> dict[str, Any]:
    """The actual cost of a finished dataset, next to the plan's cost for the same number of tokens.

    Args:
        plan: The result of `make_plan`.
        snapshot: A snapshot of the dataset.
    """
    total = snapshot.total()
    seconds = sum(cost.seconds("forward") for cost in total.costs.values())
    timed = sum(cost.num_positions for cost in total.costs.values())
    rate = timed / seconds if seconds else None
    return {
        "dataset": snapshot.url,
        "tokens": total.num_positions,
        "bytes_per_token": {
            "planned": plan["storage"]["bytes_per_token"],
            "real": total.size_bytes / max(total.num_positions, 1),
        },
        "tokens_per_second": {"planned": plan["teacher"]["tokens_per_second_per_gpu"], "real": rate},
        "device_hours": {
            "planned": total.num_positions / plan["teacher"]["tokens_per_second_per_gpu"] / _SECONDS_PER_HOUR,
            "real": seconds / _SECONDS_PER_HOUR if rate else None,
        },
        "devices": sorted(total.costs),
    }
