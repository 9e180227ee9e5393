"""Train a student from a dataset's shards, without the command line.

Run it as `python examples/train_student.py OUT STUDENT RUN`, with OUT from `logitcask annotate` and STUDENT from
`logitcask student init`.
"""

import sys

from transformers import AutoModelForCausalLM, TrainingArguments

from logitcask import SoftTargetDataset, SoftTargetTrainer

dataset, student, run = sys.argv[1:]
trainer = SoftTargetTrainer(
    AutoModelForCausalLM.from_pretrained(student),
    TrainingArguments(output_dir=run, max_steps=3, learning_rate=1e-3, report_to="none"),
    train_dataset=SoftTargetDataset(dataset, "train"),
    eval_dataset=SoftTargetDataset(dataset, "held-out"),
    alpha=0.9,
)
print("before:", trainer.evaluate()["eval_kl_nats"])
trainer.train()
print("after:", trainer.evaluate()["eval_kl_nats"])
trainer.save_model(f"{run}/student")
