# An image with one static file in it and the roots that TLS trusts.
#
#   docker build -t hekate .
#   docker run --read-only -v /srv/library:/srv/hekate:ro -p 6969:6969 -p 127.0.0.1:6970:6970 hekate
#
# The user is a number, since there is no file that names one; the library must be readable for it,
# or give another with --user. Nothing is written but the index, in a volume that every user may
# write to; where that cannot be, it lies among temporary files.
FROM rust:1-slim-bookworm AS build
RUN apt-get update -q && apt-get install -q -y --no-install-recommends musl-tools ca-certificates make
WORKDIR /hekate
COPY . .
RUN rustup target add "$(uname -m)-unknown-linux-musl" \
    && make static \
    && install -D -s "target/$(uname -m)-unknown-linux-musl/release/hekate" /image/hekate \
    && install -d -m 0777 /image/var/lib/hekate \
    && install -d -m 1777 /image/tmp \
    && install -D /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
# All at once: the modes of directories that are named here would be lost.
COPY --from=build /image/ /
VOLUME /var/lib/hekate
USER 65532:65532
# Peers, by TCP; the same by UDP only says that there is no uTP. And the status page.
EXPOSE 6969/tcp 6969/udp 6970/tcp
HEALTHCHECK CMD ["/hekate", "status", "--status", "127.0.0.1:6970"]
ENTRYPOINT ["/hekate"]
CMD ["seed", "--state-dir", "/var/lib/hekate", "--status", "0.0.0.0:6970", "/srv/hekate"]
