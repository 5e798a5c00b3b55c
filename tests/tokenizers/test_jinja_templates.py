"""Other models' chat templates: which tokens are answers, as transformers says it of the same template with marks.

The templates are written by hand in the public formats. Each is given twice: as models come, without marks, and with
the `{% generation %}` tags from which transformers makes its mask.
"""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer

from tinytale_mlx.errors import UserError
from tinytale_mlx.tokenizers import ByteBPE, SpecialTokens, Tokenizer
from tinytale_mlx.tokenizers.chat import encode_conversation, encode_prompt, template_from
from tinytale_mlx.tokenizers.huggingface import HuggingFaceTokenizer
from tinytale_mlx.tokenizers.jinja import JinjaTemplate
from tinytale_mlx.tokenizers.templates import CHATML

MARKERS = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>", "<|user|>", "<|assistant|>", "<|end|>"),
)
CHATML_DEFAULT = """{%- if messages[0]['role'] != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful AI assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}<A>{{- message['content'] + '<|im_end|>' -}}</A>{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""
LLAMA3 = """{{- '<|begin_of_text|>' }}
{%- set today = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' }}
{{- system_message + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if message['role'] == 'assistant' %}<A>{{- message['content'] | trim + '<|eot_id|>' }}</A>
    {%- else %}{{- message['content'] | trim + '<|eot_id|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
MISTRAL = """{{- bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}<A>{{- ' ' + message['content'] + eos_token }}</A>{%- endif %}
{%- endfor %}"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' }}
    {%- if role == 'model' %}<A>{{- message['content'] | trim + '<end_of_turn>' }}</A>{{- '\\n' }}
    {%- else %}{{- message['content'] | trim + '<end_of_turn>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
PHI = """{%- for message in messages %}
    {{- '<|' + message['role'] + '|>\\n' }}<A>{{- message['content'] + '<|end|>' }}</A>{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}"""
QWEN3 = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}<A>
    {%- if message['role'] == 'assistant' and loop.last %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
    {{- message['content'] + '<|im_end|>' }}</A>{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
FORMATS = {
    "chatml": CHATML_DEFAULT, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "phi": PHI, "qwen3": QWEN3,
}  # fmt: skip
SHARED_LINE = ("chatml", "phi", "qwen3")
"""Those in which one line writes messages of every role, so that a mark has to ask for the role."""


def bare(name: str) -> str:
    return FORMATS[name].replace("<A>", "").replace("</A>", "")


def marked(name: str) -> str:
    """With tags around answers; a line that all roles share is written once for each kind."""
    text = FORMATS[name]
    if name in SHARED_LINE:
        before, _, rest = text.partition("<A>")
        inside, _, after = rest.partition("</A>")
        answer = f"{{% generation %}}{inside}{{% endgeneration %}}"
        return f"{before}{{%- if message['role'] == 'assistant' %}}{answer}{{%- else %}}{inside}{{%- endif %}}{after}"
    return text.replace("<A>", "{% generation %}").replace("</A>", "{% endgeneration %}")


def talk(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


TALKS = [
    talk("Who are you?", "I am Tinytale."),
    talk("Who?", "I, Tinytale.", "And\nwhere?", "Here, in\n\n2024 — café.", "Bye", "Bye."),
    talk("end", "end", "assistant", "model", "a", "a"),
    talk("x", "y", "and then?"),
]


@pytest.fixture(scope="module")
def tokenizer(corpus: list[str]) -> ByteBPE:
    return ByteBPE.train(corpus, 600, special_tokens=SpecialTokens(MARKERS, bos="<s>", eos="</s>"))


@pytest.fixture(scope="module")
def theirs(tokenizer: ByteBPE, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return of_transformers(tokenizer, tmp_path_factory.mktemp("theirs"))


def of_transformers(tokenizer: Tokenizer, folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def mask_of(theirs: Any, messages: list[dict[str, str]], template: str) -> tuple[list[int], list[int]]:
    found = theirs.apply_chat_template(
        messages, chat_template=template, return_assistant_tokens_mask=True, return_dict=True
    )
    return found["input_ids"], found["assistant_masks"]


@pytest.mark.parametrize("messages", TALKS, ids=len)
@pytest.mark.parametrize("name", FORMATS)
def test_what_transformers_marks_is_trained(name: str, messages: list[dict[str, str]], tokenizer: ByteBPE, theirs: Any):
    expected = mask_of(theirs, messages, marked(name))
    for source in (bare(name), marked(name)):
        found = encode_conversation(tokenizer, messages, template_from(source))
        assert (found.ids, found.weights) == expected
    assert sum(expected[1]) > 0
    assert expected[0] == theirs.apply_chat_template(messages, chat_template=bare(name), return_dict=False)


@pytest.mark.parametrize("name", FORMATS)
def test_every_answer_is_trained_with_its_end_and_nothing_else(name: str, tokenizer: ByteBPE):
    """And a prompt is the beginning of what is trained, up to the first weight."""
    messages = TALKS[1]
    template = template_from(bare(name))
    found = encode_conversation(tokenizer, messages, template)
    text = tokenizer.decode([i for i, w in zip(found.ids, found.weights, strict=True) if w], skip_special=False)
    end = {"chatml": "<|im_end|>", "qwen3": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": "</s>",
           "gemma": "<end_of_turn>", "phi": "<|end|>"}[name]  # fmt: skip
    lead = " " if name == "mistral" else ""
    answers = [lead + one["content"] + end for one in messages if one["role"] == "assistant"]
    thinking = "<think>\n\n</think>\n\n" if name == "qwen3" else ""
    assert text == "".join([*answers[:-1], thinking + answers[-1]])
    asked = encode_prompt(tokenizer, messages[:1], template)
    assert found.ids[: len(asked)] == asked
    assert found.weights[: len(asked) + 1] == [0] * len(asked) + [1]
    last = encode_conversation(tokenizer, messages, template, trained_from=5)
    assert last.ids == found.ids
    assert tokenizer.decode([i for i, w in zip(last.ids, last.weights, strict=True) if w]) == (
        thinking.replace("<think>", "").replace("</think>", "") + lead + messages[-1]["content"]
    )


def test_the_marks_of_a_template_are_obeyed(tokenizer: ByteBPE, theirs: Any):
    """Whatever they leave out."""
    source = marked("chatml").replace(
        "{{- message['content'] + '<|im_end|>' -}}{% endgeneration %}",
        "{{- message['content'] -}}{% endgeneration %}{{- '<|im_end|>' -}}",
    )
    found = encode_conversation(tokenizer, TALKS[1], template_from(source))
    assert (found.ids, found.weights) == mask_of(theirs, TALKS[1], source)
    assert tokenizer.special_ids["<|im_end|>"] not in [i for i, w in zip(found.ids, found.weights, strict=True) if w]
    assert encode_prompt(tokenizer, TALKS[0][:1], template_from(source)) == encode_prompt(
        tokenizer, TALKS[0][:1], template_from(bare("chatml"))
    )


def metaspace() -> Tokenizer:
    """A tokenizer like SentencePiece's, which puts a space before a text: a piece alone has other ids than in it."""
    vocabulary = ["<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyzW?.[]/INST"]
    pairs = [("▁", "y"), ("▁y", "e"), ("▁ye", "s"), ("n", "o")]
    vocabulary = list(dict.fromkeys([*vocabulary, *("".join(pair) for pair in pairs)]))
    backend = RustTokenizer(models.BPE({one: i for i, one in enumerate(vocabulary)}, pairs, unk_token="<unk>"))
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace()
    return HuggingFaceTokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def test_a_tokenizer_that_begins_texts_with_a_space(tmp_path: Path):
    messages = talk("Who?", "yes.", "no?", "no no.")
    expected = mask_of(of_transformers(metaspace(), tmp_path), messages, marked("mistral"))
    found = encode_conversation(metaspace(), messages, template_from(bare("mistral")))
    assert (found.ids, found.weights) == expected
    assert metaspace().encode("[INST]") != metaspace().encode("</s>[INST]")[1:]  # alone it is other tokens


def test_no_token_belongs_to_a_prompt_and_to_its_answer():
    """The marker's line break and the answer's would be one token of the whole text; the prompt has the first alone."""
    bpe = ByteBPE.train(["x\n\n\ny" * 50], 273, special_tokens=SpecialTokens(MARKERS, bos="<s>", eos="</s>"))
    messages = talk("x", "\n\ny")
    template = template_from(bare("phi"))
    found, asked = encode_conversation(bpe, messages, template), encode_prompt(bpe, messages[:1], template)
    text = bpe.decode(found.ids, skip_special=False)
    assert found.ids != bpe.encode(text)
    assert found.ids[: len(asked)] == asked
    assert bpe.decode([i for i, w in zip(found.ids, found.weights, strict=True) if w]) == "\n\ny"


def test_the_date_in_a_template_does_not_change_what_is_trained(tokenizer: ByteBPE):
    template = JinjaTemplate("{{ strftime_now('%Y-%m-%d') }}" + bare("chatml"))
    fixed = encode_conversation(tokenizer, TALKS[0], template.timeless())
    asked = encode_prompt(tokenizer, TALKS[0][:1], template.timeless())
    assert tokenizer.decode(fixed.ids).startswith("2024-07-26")
    assert fixed.ids[: len(asked)] == asked
    assert not tokenizer.decode(encode_prompt(tokenizer, TALKS[0][:1], template)).startswith("2024-07-26")


# ---------------------------------------------------------------------- what is refused
FORGETFUL = (
    "{% for message in messages %}{% if loop.last or message['role'] != 'user' %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""It writes a question only while that is the last message."""
REFUSED = {
    FORGETFUL: "writes what is before message 2 in another way once",
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}": "no mark for the end of an",
    "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}</s>{% endfor %}": "no mark for the end",
    "{{ messages[0]['role'] / 2 }}": "refuses this conversation: unsupported operand",
    "{{ 1 // 0 }}": "refuses this conversation: integer division or modulo by zero",
    "{{ raise_exception('no\nway') }}": "refuses this conversation: no way",
    "{{ nothing.at.all }}": "refuses this conversation: 'nothing' is undefined",
    "{{ messages.__class__.__mro__ }}": "refuses this conversation: access to attribute '__class__'",
}


@pytest.mark.parametrize("source", REFUSED)
def test_a_template_that_does_not_show_its_answers(source: str, tokenizer: ByteBPE):
    with pytest.raises(UserError, match=REFUSED[source]) as caught:
        encode_conversation(tokenizer, TALKS[0], template_from(source))
    assert "\n" not in str(caught.value)
    if "refuses" not in REFUSED[source]:
        assert "such as --template chatml" in str(caught.value)


def test_messages_that_a_template_or_nobody_can_write(tokenizer: ByteBPE):
    with pytest.raises(UserError, match="refuses this conversation: System role not supported"):
        encode_conversation(tokenizer, [{"role": "system", "content": "x"}, *TALKS[0]], template_from(bare("gemma")))
    with pytest.raises(UserError, match="refuses this conversation: roles must alternate"):
        encode_conversation(tokenizer, TALKS[0] + TALKS[0][1:], template_from(bare("mistral")))
    with pytest.raises(UserError, match=r"U\+FDD0 or U\+FDD1"):
        encode_conversation(tokenizer, talk("\ufdd0", "x"), template_from(bare("phi")))
    with pytest.raises(UserError, match="is not valid"):
        template_from("{% generation %}")


def test_our_own_is_known_by_its_text():
    assert template_from(CHATML.jinja) is CHATML
    assert template_from(bare("chatml")).name == "own"
