# syntax=docker/dockerfile:1

# The compiler runs on the builder's own platform and cross-compiles: emulation would take ten times as long.
FROM --platform=$BUILDPLATFORM golang:1.26.8 AS build
WORKDIR /src

# Module files first: dependencies are downloaded again only when these change. go.work names every module, so all of
# them have to be there.
COPY go.work go.work.sum go.mod go.sum ./
COPY api/go.mod api/go.sum api/
COPY examples/watch/go.mod examples/watch/go.sum examples/watch/
RUN --mount=type=cache,target=/go/pkg/mod go mod download

COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ENV GOCACHE=/go/cache
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/go/cache \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/groupinfo-operator .

# No shell, no package manager, certificate authorities included (OpenIM's REST API and HTTP targets need them).
FROM gcr.io/distroless/static:nonroot
COPY --from=build /out/groupinfo-operator /groupinfo-operator
# A number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/groupinfo-operator"]
