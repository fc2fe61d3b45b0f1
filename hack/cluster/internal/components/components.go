package components

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Component is one binary of the cluster.
type Component struct {
	// Name of the binary, as envtest expects it.
	Name string
	// Package that holds its main function.
	Package string
}

// All lists the components in the order in which they are built: the smallest first, so that a mistake in the
// environment shows within a minute.
func All() []Component {
	return []Component{
		{Name: "etcd", Package: "go.etcd.io/etcd/server/v3"},
		{Name: "kubectl", Package: "k8s.io/kubernetes/cmd/kubectl"},
		{Name: "kube-apiserver", Package: "k8s.io/kubernetes/cmd/kube-apiserver"},
		{Name: "kube-scheduler", Package: "k8s.io/kubernetes/cmd/kube-scheduler"},
		{Name: "kube-controller-manager", Package: "k8s.io/kubernetes/cmd/kube-controller-manager"},
	}
}

// selectByName returns the named components in build order, or all of them.
func selectByName(names []string) ([]Component, error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	var known, selected []string
	for _, c := range all {
		known = append(known, c.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown component %q; known are %s", name, strings.Join(known, ", "))
		}
		selected = append(selected, name)
	}
	return slices.DeleteFunc(all, func(c Component) bool { return !slices.Contains(selected, c.Name) }), nil
}

var requirement = regexp.MustCompile(`(?m)^\s*(?:require\s+)?k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)`)

// version is the Kubernetes release that go.mod pins.
type version struct{ git, major, minor string }

func parseVersion(goMod []byte) (version, error) {
	match := requirement.FindSubmatch(goMod)
	if match == nil {
		return version{}, fmt.Errorf("go.mod does not require k8s.io/kubernetes")
	}
	return version{git: string(match[1]), major: string(match[2]), minor: string(match[3])}, nil
}

// buildFlags are the flags of go build for every component. Without the stamped version, clients that parse the
// server's version fail. The -X flags mean nothing to etcd, where the linker ignores them.
func buildFlags(v version) []string {
	const pkg = "k8s.io/component-base/version"
	return []string{
		"-trimpath",
		fmt.Sprintf("-ldflags=-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s",
			pkg, v.git, v.major, v.minor),
	}
}

// cacheKey names the cache directory: whatever changes a binary changes the name.
func cacheKey(v version, parts ...string) string {
	hash := sha256.New()
	for _, part := range parts {
		// The length keeps ("a", "bc") and ("ab", "c") apart.
		fmt.Fprintf(hash, "%d\n%s", len(part), part)
	}
	return fmt.Sprintf("kubernetes-%s-%s", v.git, hex.EncodeToString(hash.Sum(nil))[:12])
}
