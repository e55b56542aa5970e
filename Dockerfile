# The supervisor for an engine it finds: a mounted socket, DOCKER_HOST, or none. Dockerfile.dind brings an engine along.
# Built with `scripts/build-image`; both builders take it, so there is no `# syntax=` line and no RUN --mount.
ARG BASE_IMAGE=docker.io/library/debian:trixie-slim

FROM ${BASE_IMAGE} AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY entrypoint/add-certificates.sh ./
# PEM text of the CAs that this network needs, for instance before a proxy that looks into TLS.
ARG EXTRA_CA_CERTIFICATES
RUN sh add-certificates.sh
# Dependencies first: their layer stays while only our own code changes.
COPY pyproject.toml ./
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" >needed \
    && python3 -m venv tools \
    && python3 -m venv --without-pip /opt/supervisor \
    && tools/bin/pip install --no-cache-dir --disable-pip-version-check hatchling \
    && tools/bin/pip --python /opt/supervisor/bin/python install --no-cache-dir --disable-pip-version-check -r needed
COPY README.md LICENSE ./
COPY supervisor supervisor
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/supervisor/bin/python install --no-index --no-deps wheels/*.whl

FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates haproxy python3 \
    && rm -rf /var/lib/apt/lists/*
COPY entrypoint /usr/local/lib/supervisor
ARG EXTRA_CA_CERTIFICATES
RUN sh /usr/local/lib/supervisor/add-certificates.sh
COPY --from=builder /opt/supervisor /opt/supervisor
RUN ln -s /opt/supervisor/bin/supervisor /usr/local/bin/supervisor && mkdir -p /app \
    && useradd --system --user-group --create-home --home-dir /home/app --shell /usr/sbin/nologin app

# Last on the PATH, so that a python which an image on top installs comes before ours.
ENV PATH=$PATH:/opt/supervisor/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1
# The supervisor needs root (an engine, a socket, ports below 1024); the app does not, unless it uses Docker itself:
# then set SUPERVISOR_APP_USER=root, or give it the socket's group as app:GROUP.
ENV SUPERVISOR_APP_USER=app
WORKDIR /app
# Install id, secrets, releases. Docker makes an anonymous volume where none is named.
VOLUME /var/lib/supervisor
EXPOSE 3000
STOPSIGNAL SIGTERM
# Every 10 s: an outage is seen within half a minute. 3 s: `supervisor health` gives up by itself after 2. The start
# period is above the deadline of a boot (SUPERVISOR_BOOT_SECONDS, 900): until then the supervisor ends by itself, and the
# first good answer ends the period anyway. No --start-interval: engines before 25 refuse it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=960s --retries=3 CMD ["supervisor", "health"]
ENTRYPOINT ["/usr/local/lib/supervisor/entrypoint.sh"]

# Last, as they change with every build.
ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="container-supervisor" \
      org.opencontainers.image.description="PID 1 for containers that brings a whole stack up, for a Docker engine it finds" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
