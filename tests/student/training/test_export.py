"""The exported student: it loads in plain `transformers`, and its card names its origin."""

import json

import torch
from transformers import AutoModelForCausalLM

from logitcask.schemas.dataset.snapshot import load_snapshot
from logitcask.teacher.text.tokenizers import load_tokenizer


def test_the_trained_student_generates_text_in_plain_transformers(finished_run):
    model = AutoModelForCausalLM.from_pretrained(finished_run / "student")
    tokenizer = load_tokenizer(finished_run / "student")
    prompt = [tokenizer.info.bos_id, *tokenizer.encode("The student")]
    generated = model.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)
    assert model.config.use_cache
    assert tokenizer.decode(generated[0].tolist()[1:]).startswith("The student")


def test_the_trained_student_names_its_teacher_data_and_licenses(finished_run, run_dataset):
    identity = json.loads((finished_run / "student" / "logitcask.json").read_text())
    assert identity["licences"] == {"initial_weights": None, "teacher": "apache-2.0", "corpus": "PSF-2.0"}
    assert identity["training"]["teachers"][0]["name"] == "random"
    assert identity["training"]["shards_digests"] == [load_snapshot(run_dataset).shards_digest]
    assert identity["initialisation"]["kept_layers"] == [0, 3]
