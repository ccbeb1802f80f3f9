# The static binary, and nothing else: docker build -t wharf .
#
#   docker run -p 5000:5000 -v wharf:/var/lib/wharf -v ./wharf.toml:/etc/wharf/wharf.toml:ro wharf

FROM rust:1-bookworm AS build
WORKDIR /wharf
COPY scripts/setup scripts/setup
COPY Cargo.toml Cargo.lock ./
RUN scripts/setup dist
COPY . .
RUN make dist && cp target/*/dist/wharf /wharf.static && mkdir /empty

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /wharf.static /usr/bin/wharf
COPY --from=build /wharf/LICENSE /usr/share/doc/wharf/LICENSE
COPY config/container.toml /etc/wharf/wharf.toml
# A volume takes its owner from here.
COPY --from=build --chown=65532:65532 /empty /var/lib/wharf

USER 65532:65532
VOLUME /var/lib/wharf
EXPOSE 5000
ENTRYPOINT ["/usr/bin/wharf"]
CMD ["serve", "--config", "/etc/wharf/wharf.toml"]
