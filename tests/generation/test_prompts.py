"""A prompt begins as the texts began that the model was trained on."""

import pytest

from tinytale_mlx.data.encode import Encoder, encode_some
from tinytale_mlx.generation.prompts import chat_prompt, text_prompt
from tinytale_mlx.tokenizers import ByteBPE, SpecialTokens

ASKED = [{"role": "user", "content": "Who?"}]


def tokenizer(specials: SpecialTokens | None, begins: bool) -> ByteBPE:
    made = ByteBPE.train("the fox and the cat", 300, special_tokens=specials)
    made.begins_with_bos = begins
    return made


@pytest.mark.filterwarnings("ignore:the vocabulary has")
@pytest.mark.parametrize("begins", [True, False])
def test_begins_with_bos_where_the_tokenizer_says_so(begins: bool) -> None:
    made = tokenizer(None, begins)
    plain = made.encode("the cat")
    assert text_prompt(made, "the cat") == [made.bos_id] * begins + plain
    assert text_prompt(made, "") == [made.bos_id]
    trained = encode_some(Encoder(made), [("the cat", None)]).tokens.tolist()
    assert trained == [*text_prompt(made, "the cat"), made.eos_id]


@pytest.mark.filterwarnings("ignore:the vocabulary has")
def test_without_bos() -> None:
    made = tokenizer(SpecialTokens(), False)
    assert text_prompt(made, "the cat") == made.encode("the cat")
    assert text_prompt(made, "") == made.encode("\n")


@pytest.mark.filterwarnings("ignore:the vocabulary has")
def test_a_chat_begins_with_bos_once() -> None:
    made = tokenizer(None, True)
    assert chat_prompt(made, ASKED).count(made.bos_id) == 1
    markers = SpecialTokens(("<|im_start|>", "<|im_end|>"), bos="<|im_start|>", eos="<|im_end|>")  # as SmolLM2's
    assert chat_prompt(tokenizer(markers, True), ASKED)[0] == 0
    assert chat_prompt(tokenizer(markers, True), ASKED)[1] != 0
