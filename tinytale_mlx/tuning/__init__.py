"""Tuning a trained model with little memory: adapters, learned prompts, quantized weights.

`new_adapter` makes one, `attach` puts it on a model, `adapter_files` and `peft` keep it, `merging` makes it part of
the weights. `quantize` shrinks the model below it.
"""

from .adapter_files import load_adapter, save_adapter
from .adapter_value import Adapter, fingerprint
from .adapters import Tuned, attach, new_adapter
from .lora import dropout_keys
from .merging import Fused, combine, fuse
from .peft import export_peft, import_peft
from .rates import lora_plus

__all__ = [
    "Adapter",
    "Fused",
    "Tuned",
    "attach",
    "combine",
    "dropout_keys",
    "export_peft",
    "fingerprint",
    "fuse",
    "import_peft",
    "load_adapter",
    "lora_plus",
    "new_adapter",
    "save_adapter",
]
