# syntax=docker/dockerfile:1
#
# CPU nodes: the head, decode workers, and whole runs with the embedded Whisper tiny.en.
#
#   docker build -f infra/docker/cpu.Dockerfile -t dawnchorus-cpu:0.1.0 .
#
# The base is pinned by tag; for a build that cannot change, add the digest your registry shows for it.

FROM docker.io/library/python:3.11.14-bookworm AS build
# bash, with pipefail: a failed left side of a pipe fails the build.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
# Installed under a prefix of its own, which becomes /usr/local: KubeRay and SkyPilot start login shells,
# which reset PATH, so a venv's python would not be found.
COPY infra/constraints.txt ./
# boto3: the autoscaler of `ray up` on AWS runs on the head.
RUN pip install --no-cache-dir --prefix=/install --constraint constraints.txt \
    "ray[data,default]==2.60.0" boto3==1.41.5
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
RUN pip wheel --no-cache-dir --no-deps --wheel-dir dist . \
    && wheel="$(echo dist/dawnchorus-*.whl)" \
    && PYTHONPATH=/install/lib/python3.11/site-packages pip install --no-cache-dir \
        --prefix=/install --constraint constraints.txt "${wheel}[whisper,score,cluster,otel]"

FROM docker.io/library/python:3.11.14-slim-bookworm
# rsync: `ray up` copies files into the container with it. wget: KubeRay before 1.6 probes with it.
# Debian removes superseded versions from its mirrors, so pinned ones would soon not build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home dawnchorus \
    && install --directory --owner=dawnchorus --group=dawnchorus /models
COPY --from=build /install /usr/local
COPY --chmod=755 infra/cluster/leave.sh /usr/local/bin/leave
USER 1000:1000
WORKDIR /home/dawnchorus
# Unbuffered: a driver that is killed has said what it did. HF_HOME: where hub models are kept; mount it.
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 HF_HOME=/models
# Every use of the image has a raylet: a node of a cluster, or a run on its own, which starts one.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD ["/bin/bash", "-c", "grep -qsx raylet /proc/[0-9]*/comm"]
CMD ["dawnchorus", "--help"]
