"""The loss of a batch: parts are separate, and it equals the plain losses of the model's own logits."""

from itertools import pairwise

import torch
from torch.nn.functional import cross_entropy

from logitcask.student.data.collator import collate, targets_of
from logitcask.student.losses.truncated_kl import truncated_kl
from logitcask.student.model.projection import hidden_states
from logitcask.student.training.batch_loss import run_as_forward, soft_target_loss


def test_parts_of_a_window_have_the_hidden_states_of_parts_alone(dataset, tiny_student):
    model = tiny_student().eval()
    batch = collate([dataset[0], dataset[2]])
    whole = hidden_states(model, batch["input_ids"], batch["position_ids"])
    for row, index in enumerate((0, 2)):
        starts = dataset[index].windows.part_starts().nonzero()[0].tolist()
        edges = [*starts, dataset[index].windows.num_positions]
        for start, stop in pairwise(edges):
            ids = batch["input_ids"][row : row + 1, start:stop]
            alone = hidden_states(model, ids, torch.arange(stop - start).unsqueeze(0))
            torch.testing.assert_close(whole[row, start:stop], alone[0], atol=1e-5, rtol=1e-5)


def test_the_loss_equals_the_plain_losses_of_the_models_own_logits(dataset, tiny_student):
    model, batch = tiny_student(), collate([dataset[0], dataset[3]])
    ours = soft_target_loss(model, batch, vocab_size=dataset.vocab_size, kl_weight=0.3, cross_entropy_weight=0.7).loss
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    scored = logits.flatten(0, 1)[batch["scored_rows"]]
    kl = truncated_kl(scored, targets_of(batch, dataset.vocab_size)).sum()
    ce = cross_entropy(scored, batch["labels"], reduction="sum")
    torch.testing.assert_close(ours, 0.3 * kl + 0.7 * ce)
    parameters = list(model.parameters())
    plain = torch.autograd.grad(0.3 * kl + 0.7 * ce, parameters)
    for got, want in zip(torch.autograd.grad(ours, parameters), plain, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_a_function_runs_as_the_forward_pass_with_its_hooks(tiny_student):
    model, calls = tiny_student(), []
    model.register_forward_hook(lambda *_: calls.append("hook"))
    assert run_as_forward(model, model, lambda: torch.tensor(3.0)) == 3
    assert calls == ["hook"]
    assert model(input_ids=torch.tensor([[1]])).logits.shape == (1, 1, 48)
