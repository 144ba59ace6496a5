# The Debian package, built in a container; the images are made of it (Dockerfile).
#
#   docker build -f deploy/docker/package.Dockerfile --output build/release .
#   docker build -f deploy/docker/package.Dockerfile --output build/release --build-arg CUDA=13.0.88 .    # with kernels for GPUs

ARG BASE=docker.io/library/debian:bookworm-slim@sha256:60eac759739651111db372c07be67863818726f754804b8707c90979bda511df

FROM ${BASE} AS build
WORKDIR /bellwether
COPY tools/setup.sh tools/
RUN tools/setup.sh && rm -rf /var/lib/apt/lists/*
# nvcc of this version from PyPI; none: no kernels for GPUs.
ARG CUDA=
ENV CUDA_HOME=/opt/nvidia/cu13
RUN if [ -n "$CUDA" ]; then python3 -m pip install --no-cache-dir --no-deps --target /opt \
        "nvidia-cuda-nvcc==$CUDA" "nvidia-cuda-crt==$CUDA" "nvidia-nvvm==$CUDA" \
        "nvidia-cuda-runtime==${CUDA%.*}.*" "nvidia-cuda-cccl==${CUDA%.*}.*"; fi
COPY . .
RUN make package

FROM scratch AS package
COPY --from=build /bellwether/build/release/bellwether_*.deb /
