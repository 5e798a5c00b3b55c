"""A step of DPO as TRL takes it: its DPOTrainer, transformers' Llama and peft's LoRA, driven micro-batch by batch."""

import tempfile
from collections.abc import Sequence

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from tinytale_mlx.recipe import ModelConfig

RANK = 8


class TrlDpo:
    """`step()` does one optimiser step on all pairs: prompts and responses of token ids, chosen and rejected in turn.

    What the reference thinks is computed anew in each step, as TRL does unless it is told otherwise.
    """

    def __init__(
        self, config: ModelConfig, prompts: Sequence[list[int]], responses: Sequence[list[int]], pairs: int, rate: float
    ):
        size = config.vocab_size or 0
        texts = [[" ".join(map(str, row)) for row in rows] for rows in (prompts, responses)]
        rows = [
            {"prompt": f"{prompt} ", "chosen": chosen, "rejected": rejected}
            for prompt, chosen, rejected in zip(texts[0][::2], texts[1][::2], texts[1][1::2], strict=True)
        ]
        length = len(prompts[0]) + len(responses[0])
        with tempfile.TemporaryDirectory() as folder:
            settings = DPOConfig(
                folder, per_device_train_batch_size=pairs, learning_rate=rate, max_length=length, use_cpu=True,
                bf16=False, gradient_checkpointing=False, report_to=[], disable_tqdm=True,
            )  # fmt: skip
            self.trainer = DPOTrainer(
                _llama(config),
                args=settings,
                train_dataset=Dataset.from_list(rows),
                processing_class=_numbers_as_words(size),
                peft_config=LoraConfig(r=RANK, target_modules="all-linear"),
            )
            self.batches = list(self.trainer.get_train_dataloader())
        self.trainer.create_optimizer()

    def step(self) -> None:
        trainer = self.trainer
        for batch in self.batches:
            (trainer.compute_loss(trainer.model, batch) / len(self.batches)).backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()


def _llama(config: ModelConfig) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.context,
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=config.tie_embeddings,
        )
    )


def _numbers_as_words(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer for TRL, which wants text: the token 17 is written 17."""
    words = Tokenizer(models.WordLevel({str(number): number for number in range(size)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0", eos_token="0", pad_token="0")
