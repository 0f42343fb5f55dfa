# The worker as a container image: `docker build --target slim|onnx|full .`, by default full. See docs/deploy.rst.
#
# Any image with Python 3.10 to 3.13, pip and useradd may be the base. Behind a proxy with a certificate of its own, give
# a bundle as the build secret `certificates`; nothing of it stays in the image.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
ENV PATH="/opt/uv/bin:${PATH}" \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NATIVE_TLS=1 \
    UV_PROJECT_ENVIRONMENT=/opt/venv \
    UV_PYTHON=python3 \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1
WORKDIR /src
RUN --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --target /opt/uv "uv>=0.5,<1"
# The libraries first: they stay as they are while the source changes.
COPY pyproject.toml uv.lock ./
RUN --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-default-groups --no-install-project
COPY LICENSE README.md ./
COPY src src
RUN --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-default-groups --no-editable

FROM build AS build-onnx
RUN --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-default-groups --no-editable --extra onnx

FROM build-onnx AS build-full
RUN --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-default-groups --no-editable --all-extras --no-extra testing

FROM ${BASE_IMAGE} AS worker
LABEL org.opencontainers.image.title="kiosk-redis-consumer" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that a cluster sees that it isn't root. A new volume at /bucket or /web gets its owner from here.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp worker \
    && install -d -o worker -g worker /bucket /web
ENV HEALTH_ADDRESS=0.0.0.0:8080 \
    ORT_DISABLE_TELEMETRY=1 \
    PATH="/opt/venv/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /usr/src/app
COPY --chmod=0644 consume-redis-events.py ./
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["redis-consumer", "health"]
# The script, since images that are built on this one may bring their own, as the kiosk's do.
CMD ["python", "consume-redis-events.py"]

FROM worker AS slim
COPY --from=build /opt/venv /opt/venv

FROM worker AS onnx
COPY --from=build-onnx /opt/venv /opt/venv

FROM worker AS full
COPY --from=build-full /opt/venv /opt/venv
