# The image that kubernetes, local_docker, aws_batch and ray's nodes run: `docker build -t dmoe .` for GPUs,
# `docker build --build-arg DEVICE=cpu -t dmoe:cpu .` without. CUDA comes with torch's wheels; the host needs its driver alone.
FROM python:3.11-slim

ARG DEVICE=cuda
# Further arguments for pip, such as an index that has the CPU build of torch.
ARG PIP_ARGS=""

RUN apt-get update && apt-get install -y --no-install-recommends make gcc g++ iproute2 && rm -rf /var/lib/apt/lists/*
WORKDIR /dmoe
# What changes seldom first: an edit of the code installs nothing anew.
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY tools/doctor.py tools/doctor.py
COPY dmoe/__init__.py dmoe/doctor.py dmoe/errors.py dmoe/
COPY dmoe/cli dmoe/cli
RUN make venv DEVICE=${DEVICE} PIP_ARGS="${PIP_ARGS}" && .venv/bin/pip cache purge
ENV PATH=/dmoe/.venv/bin:$PATH PYTHONUNBUFFERED=1
COPY . .
CMD ["python", "tools/doctor.py"]
