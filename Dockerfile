# Two images from one file: `docker build --target operator .` and `--target sidecar .`
# BASE is any image with Python >= 3.11 and venv. PIP_CERT: path of a CA bundle, where a proxy reads the traffic of the build.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ARG PIP_CERT=""
RUN python3 -m venv /venv

FROM build AS build-operator
COPY requirements/operator.txt /requirements.txt
RUN PIP_CERT="${PIP_CERT}" /venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: \
        --require-hashes -r /requirements.txt \
    && /venv/bin/pip uninstall --yes --quiet pip
COPY sidecar/spendmesh_sidecar /app/spendmesh_sidecar
COPY operator/spendmesh_operator /app/spendmesh_operator
RUN /venv/bin/python -m compileall -q /app

FROM build AS build-sidecar
COPY requirements/sidecar.txt /requirements.txt
RUN PIP_CERT="${PIP_CERT}" /venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: \
        --require-hashes -r /requirements.txt \
    && /venv/bin/pip uninstall --yes --quiet pip
COPY sidecar/spendmesh_sidecar /app/spendmesh_sidecar
RUN /venv/bin/python -m compileall -q /app

# 65532 is `nonroot` of the distroless images; injected pods name it too. Nothing is written: the root may be read-only.
# The two last stages repeat each other: buildah 1.28 miscounts the layers of a stage that only others build on.
FROM ${BASE} AS operator
COPY --from=build-operator /venv /venv
COPY --from=build-operator /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["/venv/bin/python", "-m", "spendmesh_operator"]

FROM ${BASE} AS sidecar
COPY --from=build-sidecar /venv /venv
COPY --from=build-sidecar /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["/venv/bin/python", "-m", "spendmesh_sidecar"]
