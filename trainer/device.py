"""In which type a device multiplies matrices."""

from __future__ import annotations

import torch


def compute_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, float32 otherwise."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32
