"""A plain eager PyTorch training step of the same model: RMSNorm, RoPE, SwiGLU, tied head, AdamW, clipping.

Written the way a competent person writes it first: one module per part, `scaled_dot_product_attention`,
`cross_entropy`, the stock optimiser. No compile, no hand-made kernels.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tinytale_mlx.recipe import ModelConfig, TrainRecipe


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        width, self.heads = config.hidden_size, config.heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, config.intermediate_size, bias=False)
        self.up = nn.Linear(width, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        h = self.norm1(x)
        q, k, v = (
            proj(h).view(batch, length, self.heads, -1).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.o_proj(y.transpose(1, 2).reshape(batch, length, width))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class GPT(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        assert config.vocab_size is not None
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=1e-5)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=config.init_std)
        size = config.hidden_size // config.heads
        rates = config.rope_theta ** (-torch.arange(0, size, 2) / size)
        angles = torch.arange(config.context)[:, None] * rates
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embed.weight)


class TorchTrainer:
    """`step(tokens [B, T+1])` does one optimiser step and returns the loss; with `autocast` partly in bfloat16."""

    def __init__(self, config: ModelConfig, train: TrainRecipe, autocast: bool = False):
        torch.manual_seed(0)
        self.autocast = autocast
        self.model = GPT(config)
        self.clip = train.max_grad_norm
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=train.learning_rate,
            betas=(train.beta1, train.beta2),
            weight_decay=train.weight_decay,
        )

    def step(self, tokens) -> float:
        tokens = torch.as_tensor(tokens, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.model(tokens[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return loss.item()
