"""The D-MoE network: multi-embedding, then experts, gate and tower.

Shapes: B rows, F fields, K dims of an embedding, I dense features.
"""

from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.model.embedding.embedding import MultiEmbedding
from dmoe.model.mixture import ExpertMixture, Outputs, watch_gradient

__all__ = ["ExpertMixture", "Network", "Outputs", "watch_gradient"]


class Network(nn.Module):
    """De-correlated mixture of experts (Wang et al. 2025, arXiv 2505.17925).

    Shape:
        - Input: dense [B, I] float; ids, a KeyedJaggedTensor with one key per feature; mask [B], 0 for padding, for normalization over
          the batch; without a mask, all rows count.
        - Output: Outputs, and the embeddings of the table sets: S tensors [B, F, K].
    """

    def __init__(self, embedding: MultiEmbedding, mixture: ExpertMixture) -> None:
        super().__init__()
        self.embedding, self.mixture = embedding, mixture

    def forward(self, dense_BI: Tensor, ids: KeyedJaggedTensor, mask_B: Tensor | None = None) -> tuple[Outputs, list[Tensor]]:
        sets_BFK = self.embedding(ids)
        return self.mixture(dense_BI, sets_BFK, mask_B), sets_BFK
