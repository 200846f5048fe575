# The images of Plaza's services: `docker build --target edge .`, and the same for session and fanout;
# `just images` builds all three. Each holds one program and the libraries it is linked to, no shell,
# no package manager, and runs as user 65532.
#
#   --build-arg BUILDER=...   an image with Rust and a C compiler, Debian or another glibc
#   --build-arg RUNTIME=...   what the program is put on; scratch needs no registry
#   --build-arg REVISION=...  the commit, for the label
#   --sbom=true               (buildx) a bill of materials beside the image, too
#
# scripts/images puts a bill of materials into each image: /usr/share/sbom/plaza-SERVICE.cdx.json.

ARG BUILDER=rust:1.95-slim-trixie
ARG RUNTIME=scratch

FROM ${BUILDER} AS build
ARG BUILDKIT_SBOM_SCAN_STAGE=true
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/target,sharing=locked \
    cargo build --release --locked --target-dir /target --bins -p plaza-edge -p plaza-session -p plaza-fanout \
    && mkdir /programs \
    && cp /target/release/plaza-edge /target/release/plaza-session /target/release/plaza-fanout /programs

# /image/SERVICE is the root file system of a service: the program, the libraries and the loader that it
# names, the authorities for TLS to the stores, the user, and an order for looking up hosts.
RUN set -eu; \
    for service in edge session fanout; do \
      program=/programs/plaza-$service; root=/image/$service; \
      install -D "$program" "$root/usr/bin/plaza-$service"; \
      ldd "$program" >/linked; grep -o '/[^ ]*' /linked >/libraries; \
      while read -r library; do install -D "$library" "$root$library"; done </libraries; \
      install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"; \
      echo 'plaza:x:65532:65532::/:/' >"$root/etc/passwd"; \
      echo 'plaza:x:65532:' >"$root/etc/group"; \
      echo 'hosts: files dns' >"$root/etc/nsswitch.conf"; \
      bill=plaza-$service.cdx.json; \
      if [ -e "target/sbom/$bill" ]; then install -D -m 644 "target/sbom/$bill" "$root/usr/share/sbom/$bill"; fi; \
    done

FROM ${RUNTIME} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="Plaza" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532

FROM runtime AS session
LABEL org.opencontainers.image.title="plaza-session" \
      org.opencontainers.image.description="Sessions, usernames and presence, over gRPC"
COPY --from=build /image/session /
EXPOSE 50051 9090
ENTRYPOINT ["/usr/bin/plaza-session"]

FROM runtime AS fanout
LABEL org.opencontainers.image.title="plaza-fanout" \
      org.opencontainers.image.description="Stores, orders and hands out every event of every room"
COPY --from=build /image/fanout /
EXPOSE 50052 9090
ENTRYPOINT ["/usr/bin/plaza-fanout"]

FROM runtime AS edge
LABEL org.opencontainers.image.title="plaza-edge" \
      org.opencontainers.image.description="Terminates the sockets of browsers and programs"
COPY --from=build /image/edge /
EXPOSE 5000 5001 9090
ENTRYPOINT ["/usr/bin/plaza-edge"]
