# syntax=docker/dockerfile:1
#
# Two images from one file:
#
#   docker build --target api    -t foretune-api .       answers: API, migrations, keys. No torch.
#   docker build --target worker -t foretune-worker .    trains, proposes, parses uploads, does the upkeep.
#
# Pip reads PIP_INDEX_URL and PIP_EXTRA_INDEX_URL from the build arguments: name a mirror, or torch's index of CPU
# wheels for machines without a GPU (the default wheel brings CUDA and is some gigabytes larger).

ARG PYTHON_VERSION=3.11

# What both images run on, and as whom. Nothing is built in them: every dependency has a wheel.
FROM python:${PYTHON_VERSION}-slim AS runtime
RUN groupadd --gid 10001 foretune \
 && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin foretune \
 && install --directory --owner=foretune --group=foretune --mode=0750 /var/lib/foretune /var/lib/foretune/artifacts
ENV PATH=/opt/foretune/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1
# `python -m` imports from the working folder first: an empty one.
WORKDIR /home/foretune

FROM python:${PYTHON_VERSION}-slim AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/foretune/bin:$PATH
RUN python -m venv /opt/foretune
WORKDIR /build
# The dependencies alone, from pyproject.toml: a change of the source does not install them again.
COPY pyproject.toml ./
RUN touch README.md

FROM build AS build-api
RUN --mount=type=cache,target=/root/.cache/pip pip install '.[api,s3]'
COPY foretune foretune
COPY service service
COPY migrations migrations
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .

FROM build AS build-worker
RUN --mount=type=cache,target=/root/.cache/pip pip install '.[worker,s3]'
COPY foretune foretune
COPY service service
COPY migrations migrations
COPY metalearner metalearner
COPY workers workers
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .
# Compiled for the processor that builds; on another one a worker compiles at its start (twenty seconds) and keeps that.
RUN cd / && export NUMBA_CACHE_DIR=/opt/numba && python -m metalearner && python -m workers.engine

FROM runtime AS worker
COPY --from=build-worker /opt/foretune /opt/foretune
COPY --from=build-worker --chown=10001:10001 /opt/numba /home/foretune/.cache/numba
ENV NUMBA_CACHE_DIR=/home/foretune/.cache/numba
# SIGTERM means: finish the epoch, keep a checkpoint, hand back. Give it 40 seconds.
ENV REMAP_SIGTERM=SIGQUIT
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s --retries=3 \
    CMD python -m celery -A workers.app inspect ping -t 10 -d train@$HOSTNAME
CMD ["python", "-m", "celery", "-A", "workers.app", "worker", "-Q", "train", "-P", "prefork", "-c", "1", \
     "-n", "train@%h", "-l", "info", "--without-mingle", "--without-gossip"]

# Last, so that a build without a target is the small one.
FROM runtime AS api
COPY --from=build-api /opt/foretune /opt/foretune
USER 10001:10001
EXPOSE 8642
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8642, timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "service.api", "--host", "0.0.0.0", "--port", "8642"]
