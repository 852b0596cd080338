# syntax=docker/dockerfile:1
# Images of Usher. `cargo xtask test --deploy` builds both with buildah from this file, with the files that the stages
# `wasm-files` and `host-files` would make made outside; k8s/README.md says how reproducible they are.
#
#   docker build --target wasm --platform wasi/wasm --tag usher-wasm:0.1.0 .   the module and nothing else
#   docker build --target host --tag usher:0.1.0 .                             usher, compiled code, plugin, models

# On the machine's own platform, whatever the image's: a module is the same everywhere.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        clang libclang-dev debian-archive-keyring patchelf python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /usher
COPY . .

# What set-up fetches and what cargo makes is kept between builds: a change of the code fetches nothing again.
FROM build AS wasm-files
RUN --mount=type=cache,target=/usher/.tools --mount=type=cache,target=/usher/target \
    --mount=type=cache,target=/usr/local/cargo/registry \
    cargo xtask image-files wasm /image/wasm

FROM build AS host-files
RUN --mount=type=cache,target=/usher/.tools --mount=type=cache,target=/usher/target \
    --mount=type=cache,target=/usr/local/cargo/registry \
    cargo xtask image-files host /image/host

FROM scratch AS wasm
ARG REVISION=""
COPY --from=wasm-files /image/wasm/service.wasm /service.wasm
USER 65532:65532
ENTRYPOINT ["/service.wasm"]
LABEL org.opencontainers.image.title="Usher, the module" \
      org.opencontainers.image.description="A users service in one WebAssembly module, for WasmEdge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION"

FROM debian:trixie-slim AS host
ARG REVISION=""
# What changes seldom first, so that a change of the code replaces the last layers only.
COPY --from=host-files /image/host/lib /opt/usher/lib
COPY --from=host-files /image/host/models /opt/usher/models
COPY --from=host-files /image/host/plugin /opt/usher/plugin
COPY --from=host-files /image/host/bin /opt/usher/bin
COPY --from=host-files /image/host/service.so /opt/usher/service.so
ENV USHER_MODULE=/opt/usher/service.so \
    USHER_DIR=models:/opt/usher/models:ro \
    WASMEDGE_PLUGIN_PATH=/opt/usher/plugin/libwasmedgePluginWasmEdgeTensorflowLite.so
WORKDIR /opt/usher
USER 65532:65532
EXPOSE 8080 9090
# usher is made to be PID 1: it waits for its children and drains on SIGTERM.
ENTRYPOINT ["/opt/usher/bin/usher"]
CMD ["serve"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/opt/usher/bin/usher", "health"]
LABEL org.opencontainers.image.title="Usher" \
      org.opencontainers.image.description="A users service in WebAssembly, served by supervised workers of WasmEdge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION"
