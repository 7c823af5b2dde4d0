# syntax=docker/dockerfile:1
#
# GPU workers: Whisper by CTranslate2, and NeMo's models by torch with CUDA 13. Most of its size is CUDA.
#
#   docker build -f infra/docker/gpu.Dockerfile -t dawnchorus-gpu:0.1.0 .
#
# No CUDA base image: torch's wheels bring CUDA 13 along, and a base would hold a second copy of it. The
# node brings the driver (580 or newer, for CUDA 13) by NVIDIA's container toolkit or device plugin.
# The base is pinned by tag; for a build that cannot change, add the digest your registry shows for it.

FROM docker.io/library/python:3.11.14-bookworm AS build
# bash, with pipefail: a failed left side of a pipe fails the build.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
# Installed under a prefix of its own, which becomes /usr/local: KubeRay and SkyPilot start login shells,
# which reset PATH, so a venv's python would not be found.
COPY infra/constraints.txt ./
# The large layers first: they change when a pin does, not when the code does.
# CTranslate2 is built against CUDA 12 and loads libcublas.so.12, which torch does not bring. boto3: the
# autoscaler of `ray up` on AWS runs on the head, which has this image for NeMo's engines.
RUN pip install --no-cache-dir --prefix=/install --constraint constraints.txt \
    "ray[data,default]==2.60.0" boto3==1.41.5 torch==2.13.0 nvidia-cublas-cu12==12.9.1.4
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
RUN pip wheel --no-cache-dir --no-deps --wheel-dir dist . \
    && wheel="$(echo dist/dawnchorus-*.whl)" \
    && PYTHONPATH=/install/lib/python3.11/site-packages pip install --no-cache-dir \
        --prefix=/install --constraint constraints.txt "${wheel}[nemo,whisper,score,cluster,otel]"

FROM docker.io/library/python:3.11.14-slim-bookworm
# rsync: `ray up` copies files into the container with it. wget: KubeRay before 1.6 probes with it. gcc:
# Triton builds its driver when `decoder: static` compiles its first kernel.
# Debian removes superseded versions from its mirrors, so pinned ones would soon not build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home dawnchorus \
    && install --directory --owner=dawnchorus --group=dawnchorus /models
COPY --from=build /install /usr/local
COPY --chmod=755 infra/cluster/leave.sh /usr/local/bin/leave
USER 1000:1000
WORKDIR /home/dawnchorus
# Unbuffered: a driver that is killed has said what it did. HF_HOME: where hub models are kept; mount it.
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 HF_HOME=/models \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/usr/local/lib/python3.11/site-packages/nvidia/cublas/lib
# Every use of the image has a raylet: a node of a cluster, or a run on its own, which starts one.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD ["/bin/bash", "-c", "grep -qsx raylet /proc/[0-9]*/comm"]
CMD ["dawnchorus", "--help"]
