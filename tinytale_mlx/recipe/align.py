"""Alignment: the reward model, tuning on preferences, and the two kinds of policy gradients."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import PositiveFloat, PositiveInt, Section

NotNegative = Annotated[float, Field(ge=0)]
LossKL = Literal["k2", "k3", "k3_is"]


class LengthsRecipe(Section):
    """The fixed shape of everything here: so many tokens for the prompt, and behind it so many for the response."""

    prompt_tokens: PositiveInt = 128
    """Of a longer prompt the last ones are kept."""
    response_tokens: PositiveInt = 128
    """With the token that ends it. Longer responses of a data set are left out: they would have no end."""


class RewardRecipe(LengthsRecipe):
    trunk: Literal["tuned", "frozen"] = "frozen"
    """Frozen, its head alone learns, from what the model knows already: of a small model and preferences that are easy
    to tell apart, scores stay fine. Tuned, the trunk learns as well; on easy ones until all good responses have one
    score, which leaves a policy little to win."""
    centring: NotNegative = 0.0
    """Pulls the two rewards of a pair towards a sum of 0 (Eisenstein et al. 2023: 0.01)."""
    normalize: Literal["none", "mean", "meanstd"] = "meanstd"
    """After training, over responses of the model that is to be aligned: rewards have the mean 0, and deviation 1."""
    normalize_samples: PositiveInt = 256


class PreferenceRecipe(LengthsRecipe):
    method: Literal["dpo", "ipo", "hinge", "orpo", "simpo", "kto"] = "dpo"
    """DPO (Rafailov et al. 2023), with the loss of IPO (Azar et al. 2024) or a hinge (Zhao et al. 2023); ORPO (Hong et
    al. 2024) and SimPO (Meng et al. 2024), which need no reference; KTO (Ethayarajh et al. 2024) of single labels."""
    beta: PositiveFloat = 0.5
    """How much the log-probabilities weigh; of ORPO the weight of the odds, of SimPO about 2. Published runs of large
    models have 0.1, with which a small one soon writes what nobody has ever written."""
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Of DPO: the chance that a label is wrong (cDPO, Mitchell 2023)."""
    nll: NotNegative = 0.0
    """What the chosen response's own loss per token adds (RPO, Pang et al. 2024): keeps it from becoming unlikely."""
    margin: NotNegative = 0.5
    """Of SimPO: by how much the chosen response is to be ahead."""
    desirable_weight: PositiveFloat = 1.0
    undesirable_weight: PositiveFloat = 1.0
    """Of KTO, to make up for there being more of one kind."""

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "PreferenceRecipe":
        if self.smoothing and self.method != "dpo":
            raise ValueError("smoothing goes with the method dpo, and only with it")
        if self.nll and self.method in ("orpo", "kto"):
            raise ValueError(f"nll means nothing to the method {self.method}")
        return self


class PolicyRecipe(LengthsRecipe):
    """What PPO and the group methods share: responses are sampled, scored, and learned from a few times."""

    iterations: PositiveInt = 60
    """Rounds of sampling and learning."""
    temperature: PositiveFloat = 1.0
    """Of sampling, and so of all log-probabilities."""
    epochs: PositiveInt = 1
    """How often the responses of an iteration are gone through."""
    minibatches: PositiveInt = 1
    """Optimiser steps per epoch."""
    micro_batch_size: PositiveInt = 16
    """Responses that are in memory at a time on the way back."""
    sample_batch_size: PositiveInt = 32
    """Responses that are written at a time."""
    learning_rate: PositiveFloat = 1e-5
    """At the start; it falls to 0 in a straight line."""
    max_grad_norm: PositiveFloat | None = 1.0
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """How far the ratio of new to old probability may go before its gradient is cut (Schulman et al. 2017)."""
    missing_eos: Literal["subtract", "replace", "none"] = "none"
    """A response that does not end by itself: its score less the penalty, or minus the penalty instead of its score. A
    reward model knows how to read an end, and may find anything good that has none: there, replace."""
    missing_eos_penalty: NotNegative = 1.0


class PPORecipe(PolicyRecipe):
    batch_size: PositiveInt = 64
    """Responses per iteration, one to a prompt."""
    iterations: PositiveInt = 30
    minibatches: PositiveInt = 4
    """Optimiser steps per epoch. Four steps on a quarter each cost a quarter of four epochs with one step."""
    critic: Literal["separate", "shared"] = "separate"
    """A model of its own that begins as the reward model, or a head on the policy, which takes next to no memory."""
    kl_target: PositiveFloat | None = 3.0
    """Nats per response that β is steered to (Ziegler et al. 2019); left out, β stays where it is."""
    kl_horizon: PositiveInt = 100
    """Responses in which β can change by a fifth. With a long one β comes too late, and then goes too far."""
    beta: NotNegative = 0.2
    """What a nat of KL costs, at the start."""
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.95
    """λ of GAE."""
    value_clip: PositiveFloat | None = None
    """How far a value may go from what it was before its gradient is cut. The head of a reward model has never seen the
    middle of a response, and has far to go."""
    value_coefficient: NotNegative = 0.1
    entropy_coefficient: NotNegative = 0.0
    whiten_rewards: bool = False
    stop_kl: PositiveFloat | None = None
    """No more steps with this iteration's responses once the policy is so far from what wrote them, in nats per
    token."""
    ptx_coefficient: NotNegative = 0.0
    """Weight of the language-modelling loss on other text beside it (PPO-ptx, Ouyang et al. 2022)."""
    missing_eos: Literal["subtract", "replace", "none"] = "replace"

    @model_validator(mode="after")
    def _minibatches_fit(self) -> "PPORecipe":
        if self.minibatches > self.batch_size:
            raise ValueError(f"minibatches {self.minibatches} are more than the batch_size {self.batch_size}")
        return self


class GroupRecipe(PolicyRecipe):
    method: Literal["dr_grpo", "grpo", "dapo", "gspo", "rloo"] = "dr_grpo"
    """GRPO (Shao et al. 2024); without the biases of length and of deviation (Liu et al. 2025); per token of the whole
    batch (DAPO, Yu et al. 2025); with one ratio per response (GSPO, Zheng et al. 2025); or REINFORCE with the mean of
    the others (RLOO, Ahmadian et al. 2024)."""
    prompts: PositiveInt = 8
    """Per iteration."""
    iterations: PositiveInt = 30
    group_size: Annotated[int, Field(ge=2)] = 8
    """Responses to each."""
    clip_high: Annotated[float, Field(gt=0)] | None = None
    """Above `clip`, it leaves rare tokens more room to grow (DAPO: 0.28)."""
    kl: NotNegative = 0.2
    """What a nat of KL costs."""
    kl_estimator: Literal["k1", "k2", "k3", "k3_is"] | None = None
    """Left out, k3 in the loss; of RLOO k1, in the reward. k2 and k3_is lead to π_ref exp(reward / β), k3 elsewhere."""
    drop_truncated: bool = False
    """Responses without an end teach nothing, instead of what their score says."""

    @model_validator(mode="after")
    def _the_estimator_is_in_its_place(self) -> "GroupRecipe":
        if self.method == "rloo" and self.kl_estimator not in (None, "k1"):
            raise ValueError(
                f"the KL of rloo is in the reward, where {self.kl_estimator} makes the policy diverge; leave out "
                "kl_estimator"
            )
        if self.method != "rloo" and self.kl_estimator == "k1":
            raise ValueError(f"the KL of {self.method} is in the loss, where k1 holds nothing back; take k2 or k3_is")
        return self

    @property
    def loss_kl(self) -> LossKL | None:
        """The estimator in the loss; None where there is none."""
        if self.method == "rloo" or not self.kl:
            return None
        return "k3" if self.kl_estimator in (None, "k1") else self.kl_estimator
