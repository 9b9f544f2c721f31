"""Half-precision communication: TorchRec's codecs halve the bytes of embeddings and their gradients sent between ranks."""

from typing import Any

import torch

from dmoe.config.config import Config
from dmoe.errors import UserError

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of a sent element, by `sharding.comm_precision`."""


def check_precision(precision: str, device: str) -> None:
    """
    Raises:
        UserError: bf16 on a CPU, for which TorchRec would send fp16 instead.
    """
    if precision == "bf16" and device == "cpu":
        raise UserError(
            "sharding.comm_precision: bf16 travels between GPUs (NCCL) only; on the CPU (gloo) use fp16, which sends as few bytes, or fp32"
        )


def codecs_of(config: Config, device: torch.device) -> dict[str, Any] | None:
    """The `qcomm_codecs_registry` for a sharder; None if embeddings are sent unchanged.

    Applies to the all-to-all and the reduce-scatter of pooled embeddings, forward and backward. Ids, gradients of the dense part and of
    data-parallel tables are sent unchanged. Tables, sums and losses stay in float32.

    Raises:
        UserError: see `check_precision`.
    """
    precision = config.sharding.comm_precision
    if precision == "fp32":
        return None
    check_precision(precision, device.type)
    from fbgemm_gpu.quantize_comm import QuantizedCommCodec
    from fbgemm_gpu.split_embedding_configs import SparseType
    from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry

    class Scaled(QuantizedCommCodec):
        """Divides by the scale in float32. FBGEMM's decoder does it in fp16, which loses the precision gained (fbgemm-gpu 1.8.0)."""

        def decode(self, input_tensor: torch.Tensor, ctx: Any = None) -> torch.Tensor:
            return input_tensor.float() / self._loss_scale

    kind = CommType(precision)
    registry: dict[str, Any] | None = get_qcomm_codecs_registry(QCommsConfig(kind, kind), device=device)
    assert registry is not None
    if precision == "fp16":
        # The loss is a mean over the batch, so gradients shrink as the batch grows; without the scale, those below 6e-8 would be 0 in fp16.
        scale = float(1 << (config.train.batch_size - 1).bit_length())
        for codecs in registry.values():
            codecs.backward = Scaled(SparseType.FP16, loss_scale=scale, is_fwd=False)
    return registry
