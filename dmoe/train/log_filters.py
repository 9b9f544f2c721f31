"""Filters the warnings of libraries that neither we nor a user can act on, each as narrowly as it can be named."""

import logging
import os
import warnings


def quiet() -> None:
    """Changes this whole process: its loggers, warnings and environment. For programs, before they import torchrec; no library function
    calls it."""
    # oneDNN, glog and TensorFlow-less TensorBoard speak on import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("torchrec", "fbgemm_gpu", "torch.distributed", "torch.fx._symbolic_trace"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.WARNING)
    # A data-parallel table has no shards, and TorchRec says so for each, on the root logger.
    logging.getLogger().addFilter(lambda record: not record.getMessage().startswith("Sharding spec not found for"))
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torchrec|torch|fbgemm_gpu)(\.|$)")
    # Data-parallel tables: their gradients are right all the same (tests/distributed/test_gradients.py).
    warnings.filterwarnings("ignore", message=r"fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel was not registered")
