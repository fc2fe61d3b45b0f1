package components

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const testGoMod = "module example\n\nrequire (\n\tk8s.io/kubelet v0.1.0\n\tk8s.io/kubernetes v1.37.2\n)\n"

func TestParseVersion(t *testing.T) {
	for name, tc := range map[string]struct {
		goMod   string
		want    version
		wantErr bool
	}{
		"in a block":      {goMod: testGoMod, want: version{"v1.37.2", "1", "37"}},
		"on its own line": {goMod: "require k8s.io/kubernetes v1.40.0-rc.1 // why", want: version{"v1.40.0-rc.1", "1", "40"}},
		"missing":         {goMod: "require k8s.io/kubelet v0.1.0", wantErr: true},
		"only a tool":     {goMod: "tool k8s.io/kubernetes/cmd/kubectl", wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseVersion([]byte(tc.goMod))
			if (err != nil) != tc.wantErr || got != tc.want {
				t.Errorf("parseVersion() = %v, %v; want %v, error %t", got, err, tc.want, tc.wantErr)
			}
		})
	}
}

func TestSelectByName(t *testing.T) {
	var all []string
	for _, c := range All() {
		all = append(all, c.Name)
	}
	for name, tc := range map[string]struct {
		names   []string
		want    []string
		wantErr string
	}{
		"none means all":    {want: all},
		"build order":       {names: []string{"kube-apiserver", "etcd"}, want: []string{"etcd", "kube-apiserver"}},
		"twice counts once": {names: []string{"etcd", "etcd"}, want: []string{"etcd"}},
		"unknown":           {names: []string{"etcd", "kubelett"}, wantErr: `unknown component "kubelett"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := selectByName(tc.names)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want %q", err, tc.wantErr)
				}
				return
			}
			var gotNames []string
			for _, c := range got {
				gotNames = append(gotNames, c.Name)
			}
			if err != nil || !slices.Equal(gotNames, tc.want) {
				t.Errorf("selectByName() = %v, %v; want %v", gotNames, err, tc.want)
			}
		})
	}
}

func TestCacheKeyChangesWithEveryPart(t *testing.T) {
	v := version{"v1.37.2", "1", "37"}
	keys := map[string][]string{
		cacheKey(v, "mod", "sum"):  {"mod", "sum"},
		cacheKey(v, "mod", "sum2"): {"mod", "sum2"},
		cacheKey(v, "mods", "um"):  {"mods", "um"},
		cacheKey(v, "modsum"):      {"modsum"},
	}
	if len(keys) != 4 {
		t.Errorf("different inputs share a key: %v", keys)
	}
}

func TestCacheRoot(t *testing.T) {
	for name, tc := range map[string]struct {
		env     map[string]string
		want    string
		wantErr bool
	}{
		"own variable first":       {env: map[string]string{"GROUPINFO_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, want: "/a"},
		"then the user's cache":    {env: map[string]string{"XDG_CACHE_HOME": "/b", "HOME": "/c"}, want: "/b/groupinfo-operator"},
		"relative XDG is ignored":  {env: map[string]string{"XDG_CACHE_HOME": "b", "HOME": "/c"}, want: "/c/.cache/groupinfo-operator"},
		"then home":                {env: map[string]string{"HOME": "/c"}, want: "/c/.cache/groupinfo-operator"},
		"no home, no idea: refuse": {wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cacheRoot(func(key string) string { return tc.env[key] })
			if (err != nil) != tc.wantErr || got != tc.want {
				t.Errorf("cacheRoot() = %q, %v; want %q, error %t", got, err, tc.want, tc.wantErr)
			}
		})
	}
}

func TestEnsureUsesWhatIsThere(t *testing.T) {
	assets, cache := t.TempDir(), t.TempDir()
	t.Setenv("GROUPINFO_CACHE", cache)
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	t.Setenv("PATH", "") // anything that is built after all fails
	builder, err := NewBuilder([]byte(testGoMod), nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	executable(t, filepath.Join(assets, "etcd"))
	executable(t, filepath.Join(builder.cacheDir, "kubectl"))

	dir, err := builder.Ensure(t.Context(), []string{"etcd"})
	if err != nil || dir != assets {
		t.Errorf("everything in KUBEBUILDER_ASSETS: got %q, %v; want %q", dir, err, assets)
	}

	dir, err = builder.Ensure(t.Context(), []string{"kubectl"})
	if err != nil || dir != builder.cacheDir {
		t.Errorf("everything in the cache: got %q, %v; want %q", dir, err, builder.cacheDir)
	}

	for range 2 { // the second time, the links exist
		dir, err = builder.Ensure(t.Context(), []string{"etcd", "kubectl"})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"etcd", "kubectl"} {
			if !isExecutable(filepath.Join(dir, name)) {
				t.Errorf("%s is missing in the combined directory", name)
			}
		}
	}
	if isExecutable(filepath.Join(builder.cacheDir, "etcd")) {
		t.Error("a binary of KUBEBUILDER_ASSETS got into the cache")
	}

	if _, err := builder.Ensure(t.Context(), []string{"kube-apiserver"}); err == nil {
		t.Error("a missing component without go to build it: want an error")
	}
}

func executable(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestTail(t *testing.T) {
	for name, tc := range map[string]struct {
		output string
		bound  int
		want   string
	}{
		"short output is whole":     {output: "a\nb\n", bound: 10, want: "a\nb\n"},
		"long output begins a line": {output: "first\nsecond\nthird\n", bound: 10, want: "third\n"},
		"one endless line is cut":   {output: "0123456789", bound: 4, want: "6789"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(tail([]byte(tc.output), tc.bound)); got != tc.want {
				t.Errorf("tail() = %q, want %q", got, tc.want)
			}
		})
	}
}
