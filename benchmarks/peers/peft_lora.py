"""Fine-tuning as one writes it with transformers and peft: the model from its directory, LoRA on all linear layers."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

RANK, SCALE = 8, 20.0


class PeftTrainer:
    """`step(tokens [B, T+1], weights [B, T])` does one optimiser step and returns the mean loss.

    The method is lora, lora-checkpoint, or full, which is all weights of the blocks.
    """

    def __init__(self, folder: Path, method: str, rate: float):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if method == "full":
            model.requires_grad_(False)
            model.model.layers.requires_grad_(True)
        else:
            from peft import LoraConfig, get_peft_model

            model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=SCALE * RANK, target_modules="all-linear"))
        if method.endswith("checkpoint"):
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable()
        self.model = model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)

    def step(self, tokens: np.ndarray, weights: np.ndarray) -> float:
        ids, counted = torch.as_tensor(tokens, dtype=torch.long), torch.as_tensor(weights)
        logits = self.model(input_ids=ids[:, :-1]).logits
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * counted.flatten()).sum() / counted.sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()
