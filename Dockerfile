ARG PYTHON_IMAGE=python:3.13-slim-bookworm

# ---- what is installed: from pinned wheels only, so that nothing is compiled
FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore UV_NO_CACHE=1
WORKDIR /build

# The environment that is shipped has no pip in it; the one that makes our wheel is left behind.
COPY requirements/install.py requirements/sbom.py requirements/uv.txt requirements/pip.txt requirements/build.txt \
     requirements/runtime.txt requirements/
RUN python requirements/install.py --installer /opt/installer --new --without-pip --into /opt/venv \
        --only-binary requirements/runtime.txt \
    && python requirements/install.py --installer /opt/installer --new --without-pip --into /opt/build \
        --only-binary requirements/build.txt

COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/python -m hatchling build --target wheel --directory dist \
    && python requirements/install.py --installer /opt/installer --into /opt/venv --wheel dist/*.whl

# ---- what is run
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Shared Context Server" \
      org.opencontainers.image.description="A record that several AI agents keep together, over MCP and plain HTTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A number, since Kubernetes checks runAsNonRoot by it, and volumes belong to it.
RUN groupadd --system --gid 10001 scs \
    && useradd --system --uid 10001 --gid scs --home-dir /data --no-create-home --shell /usr/sbin/nologin scs \
    && install -d -o scs -g scs -m 0700 /data

COPY --from=builder /opt/venv /opt/venv
# HOME, since a library looks for it at import, and a user of another number has none.
# SCS_READ_UNPREFIXED: here the environment is the server's own, for clients that start stdio, too.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SCS_READ_UNPREFIXED=true \
    DATA_DIR=/data \
    HTTP_HOST=0.0.0.0 \
    HTTP_PORT=8000 \
    LOG_FORMAT=json

USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM

# Nothing is written but to /data and /tmp, so the root file system may be read-only.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SCS_HTTP_PORT') or os.environ['HTTP_PORT']), timeout=4); c.request('GET', '/ready'); raise SystemExit(c.getresponse().status != 200)"]

ENTRYPOINT ["shared-context-server"]
CMD ["serve"]
