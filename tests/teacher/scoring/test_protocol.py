"""The seam needs no engine, and its settings can be sent to workers."""

import pickle
import subprocess
import sys

from logitcask.schemas.format.scheme import ThresholdSamplingScheme
from logitcask.teacher.scoring.protocol import ScorerSpec


def test_a_spec_can_be_sent_to_workers_and_compared() -> None:
    scheme = ThresholdSamplingScheme(theta=0.1)
    spec = ScorerSpec(reference="nowhere", device="cpu", dtype="float32", scheme=scheme, temperatures=())
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(pickle.loads(pickle.dumps(spec))) == hash(spec)


def test_the_registry_and_the_annotate_stage_import_no_engine() -> None:
    code = (
        "import sys; from logitcask.teacher.scoring import protocol, registry; "
        "from logitcask.pipeline.annotation import annotate_unit, batch_size, score_windows; "
        "print({'torch', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
