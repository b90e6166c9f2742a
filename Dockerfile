# Two images from one file: `redis` (Redis with redray's settings) and `redray` (a node, or a driver).
# Both run as the user 10001, so that the password in their shared volume needs to be readable by nobody else.

FROM redis:7 AS redis
RUN install -d -o 10001 -g 10001 -m 700 /data
COPY docker/redis-start /usr/local/bin/redis-start
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["redis-start"]
CMD []

FROM python:3.11-slim AS build
RUN python3 -m venv /opt/redray
WORKDIR /src
COPY setup.cfg pyproject.toml MANIFEST.in README.md LICENSE ./
COPY lua lua
COPY redray redray
RUN /opt/redray/bin/pip install --no-cache-dir --disable-pip-version-check '.[examples]'

FROM python:3.11-slim AS redray
# /run/redray exists here so that the volume mounted over it belongs to the user.
RUN install -d -o 10001 -g 10001 -m 700 /run/redray
COPY --from=build /opt/redray /opt/redray
COPY examples /opt/redray/examples
ENV PATH=/opt/redray/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["redray"]
CMD ["--help"]
