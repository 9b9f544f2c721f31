"""Suppresses warnings of libraries on which neither dmoe nor its user can act."""

import logging
import os
import warnings


def quiet() -> None:
    """Suppresses the warnings. It changes loggers, warning filters and environment of the whole process, so only programs call it, before
    they import torchrec; no library function does."""
    # For messages that oneDNN, glog and TensorBoard print on import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("torchrec", "fbgemm_gpu", "torch.distributed", "torch.fx._symbolic_trace"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.WARNING)
    # TorchRec logs on the root logger for each data-parallel table that it has no sharding spec.
    logging.getLogger().addFilter(lambda record: not record.getMessage().startswith("Sharding spec not found for"))
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torchrec|torch|fbgemm_gpu)(\.|$)")
    # For data-parallel tables. Their gradients are right (tests/distributed/test_gradients.py).
    warnings.filterwarnings("ignore", message=r"fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel was not registered")
