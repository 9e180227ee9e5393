"""Chat templates: every place they are kept, a fixed date, and no chance."""

import json
from datetime import date

import pytest
from transformers import PreTrainedTokenizerFast

from logitcask.schemas.errors import TokenizerError
from logitcask.teacher.text.chat_template import ChatTemplate, find_chat_template

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ eos }}"


def rendered(text: str, messages=MESSAGES, **settings) -> str:
    return ChatTemplate(text, {"eos": "</s>"}, **settings).render(messages, add_generation_prompt=False).text


def test_a_template_renders_as_transformers_renders_it(byte_level):
    template = (
        "{{ bos_token }}{%- for m in messages if m.content %}\n<{{ m['role'] }}>{{ m.content | tojson }}"
        "{% if m.reasoning_content is defined %}{{ m.thinking }}{% endif %}{% if m.name %}{{ m.name }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}{% if tools %}tools{% endif %}"
    )
    messages = [*MESSAGES, {"role": "assistant", "content": "Grüße", "reasoning": "why", "name": None}]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level, bos_token="<|bos|>")
    for prompt in (False, True):
        ours = ChatTemplate(template, tokenizer.special_tokens_map).render(messages, add_generation_prompt=prompt)
        theirs = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
        assert ours.text == theirs


def test_the_day_is_the_one_that_is_given():
    template = "{{ strftime_now('%d %b %Y') }}"
    assert rendered(template, today=date(2026, 1, 2)) == "02 Jan 2026"
    assert rendered(template) == rendered(template)
    assert ChatTemplate(template, {}).asks_for_date
    assert not ChatTemplate(TEMPLATE, {}).asks_for_date


@pytest.mark.parametrize("template", ["{{ ['a', 'b'] | random }}", "{{ lipsum() }}"])
def test_a_template_that_renders_at_random_is_refused(template):
    with pytest.raises(TokenizerError, match="at random"):
        ChatTemplate(template, {})


def test_a_rendering_that_differs_the_second_time_is_refused():
    with pytest.raises(TokenizerError, match="differently each time"):
        rendered("{{ range(10 ** 5) | batch(10 ** 4) | map('random') | join(',') }}")


@pytest.mark.parametrize("template", ["{% for %}", "{{ messages[5].content.x }}", "{{ raise_exception('no') }}"])
def test_a_template_that_fails_is_an_error(template):
    with pytest.raises(TokenizerError, match=r"not valid|cannot render 2 messages"):
        rendered(template)


def test_generation_blocks_are_found():
    template = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}"
    found = ChatTemplate(template, {}).render(MESSAGES, add_generation_prompt=False)
    assert found.generated is not None
    assert [found.text[start:stop] for start, stop in found.generated] == ["Hi", "Hello"]


def test_one_of_several_templates_is_the_default():
    assert find_chat_template({"default": "a", "tool_use": "b"}, None) == "a"
    assert find_chat_template({"only": "a"}, None) == "a"
    with pytest.raises(TokenizerError, match="rag, tool_use"):
        find_chat_template({"rag": "a", "tool_use": "b"}, None)


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json"])
def test_a_processors_template_is_found(tmp_path, name):
    assert find_chat_template(None, tmp_path) is None
    (tmp_path / name).write_text(json.dumps({"chat_template": TEMPLATE}))
    assert find_chat_template(None, tmp_path) == TEMPLATE


@pytest.mark.parametrize(
    "source",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(10**9) %}x{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ messages[0].content * 10**10 }}",
        "{{ 7**(10**9) }}",
        "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{{ 'x' | center(10**10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 'x' * 30000000 }}",
    ],
)
def test_a_hostile_template_is_an_error_within_its_bound(source, monkeypatch):
    monkeypatch.setattr("logitcask.teacher.text.chat_template._MAX_SECONDS", 0.3)
    monkeypatch.setattr("logitcask.teacher.text.chat_template._MAX_MEMORY_BYTES", 300_000_000)
    with pytest.raises(TokenizerError):
        ChatTemplate(source, {}).render([{"role": "user", "content": "a"}], add_generation_prompt=False)
