# syntax=docker/dockerfile:1
# Images of Usher. The tests do not build them yet; k8s/README.md says what was tried instead.
#
#   docker build --target wasm --platform wasi/wasm --tag usher-wasm:0.1.0 .   the module and nothing else
#   docker build --target host --tag usher:0.1.0 .                             usher, compiled code, plugin, models

# On the machine's own platform, whatever the image's: a module is the same everywhere. Debian 12, as the host variant
# runs on it.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends clang libclang-dev debian-archive-keyring python3-pip \
    && rm -rf /var/lib/apt/lists/*
# The engine finds its libraries by the path at which it was built, so that this is their place in the image, too.
WORKDIR /opt/usher
COPY . .

FROM build AS module
# What set-up fetches and what cargo makes is kept between builds: a change of the code fetches nothing again.
RUN --mount=type=cache,target=/opt/usher/.tools --mount=type=cache,target=/opt/usher/target \
    --mount=type=cache,target=/usr/local/cargo/registry \
    cargo xtask build && install -D -m 0444 service.wasm /image/service.wasm

FROM module AS host-files
# Code for any CPU of this architecture, as nodes differ. Of the libraries only what the engine loads to serve: in the
# place of LLVM, 140 MB, lies the stand-in, so that nothing can be compiled in the image.
RUN --mount=type=cache,target=/opt/usher/.tools --mount=type=cache,target=/opt/usher/target \
    --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --locked --release --package host \
    && target/release/usher compile --generic -o service.so service.wasm \
    && mkdir -p /image/host/bin /image/host/plugin /image/host/.tools/wasmedge/lib \
    && cp target/release/usher target/release/usher-engine /image/host/bin/ \
    && cp .tools/wasmedge/plugin/*.so .tools/tensorflow-lite/lib/libtensorflowlite_c.so /image/host/plugin/ \
    && cp -r models service.so /image/host/ \
    && rm /image/host/models/train.py /image/host/models/README.md \
    && cp -r .tools/wasmedge/standin /image/host/.tools/wasmedge/ \
    && cd .tools/wasmedge/lib \
    && cp -a ld-linux-*.so.* libc.so.6 libm.so.6 libgcc_s.so.1 libstdc++.so.6* libz.so.1* libzstd.so.1* libfmt.so.* \
        libspdlog.so.* libwasmedge.so.* libresolv.so.2 libnss_dns.so.2 libnss_files.so.2 \
        /image/host/.tools/wasmedge/lib/ \
    && cp ../standin/libLLVM.so.* /image/host/.tools/wasmedge/lib/

FROM scratch AS wasm
COPY --from=module /image/service.wasm /service.wasm
USER 65532:65532
ENTRYPOINT ["/service.wasm"]
LABEL org.opencontainers.image.title="Usher, the module" \
      org.opencontainers.image.description="A users service in one WebAssembly module, for WasmEdge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

FROM debian:bookworm-slim AS host
COPY --from=host-files /image/host /opt/usher
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
      org.opencontainers.image.version="0.1.0"
