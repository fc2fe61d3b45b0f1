package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestLastLines(t *testing.T) {
	for name, tc := range map[string]struct {
		log  string
		n    int
		want string
	}{
		"fewer lines than asked for": {log: "a\nb\n", n: 5, want: "a\nb"},
		"more lines":                 {log: "a\nb\nc\nd\n", n: 2, want: "c\nd"},
		"exactly as many":            {log: "a\nb", n: 2, want: "a\nb"},
		"empty":                      {n: 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(lastLines([]byte(tc.log), tc.n)); got != tc.want {
				t.Errorf("lastLines() = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCertificatesAreAccepted(t *testing.T) {
	ca, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.pem) {
		t.Fatal("the authority's PEM holds no certificate")
	}
	server, err := ca.server([]string{"kubernetes"}, []net.IP{net.ParseIP("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.client("admin", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		pair    keyPair
		options x509.VerifyOptions
		wantErr bool
	}{
		"server by name":           {pair: server, options: x509.VerifyOptions{DNSName: "kubernetes"}},
		"server by address":        {pair: server, options: x509.VerifyOptions{DNSName: "127.0.0.1"}},
		"server by another name":   {pair: server, options: x509.VerifyOptions{DNSName: "example.org"}, wantErr: true},
		"client":                   {pair: client, options: x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}},
		"a client is not a server": {pair: client, wantErr: true},
		"a server is not a client": {pair: server, options: x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			pair, err := tls.X509KeyPair(tc.pair.certificate, tc.pair.key)
			if err != nil {
				t.Fatal(err)
			}
			tc.options.Roots = roots
			_, err = pair.Leaf.Verify(tc.options)
			if (err != nil) != tc.wantErr {
				t.Errorf("Verify() = %v, want error %t", err, tc.wantErr)
			}
		})
	}
	pair, err := tls.X509KeyPair(client.certificate, client.key)
	if err != nil {
		t.Fatal(err)
	}
	subject := pair.Leaf.Subject
	if subject.CommonName != "admin" || !slices.Equal(subject.Organization, []string{"system:masters"}) {
		t.Errorf("client certificate is for %s", subject)
	}
}

func TestPortsDiffer(t *testing.T) {
	p, err := choosePorts("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{}
	fields := reflect.ValueOf(p)
	for i := range fields.NumField() {
		seen[fields.Field(i).Int()] = true
	}
	if len(seen) != fields.NumField() || seen[0] {
		t.Errorf("ports %+v: want all set and different", p)
	}
}

func TestAuditFlags(t *testing.T) {
	c := &Cluster{dir: t.TempDir()}
	if args := strings.Join(c.apiServerArgs(Options{}), " "); strings.Contains(args, "audit") {
		t.Errorf("audit flags without being asked for: %s", args)
	}
	options := Options{AuditLog: "audit.log", APIServerArgs: []string{"--v=4"}}
	if err := c.prepareAudit(&options); err != nil {
		t.Fatal(err)
	}
	args := c.apiServerArgs(options)
	log, err := filepath.Abs("audit.log")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--audit-log-path=" + log, "--audit-policy-file=" + c.path(auditPolicyFile), "--v=4"} {
		if !slices.Contains(args, want) {
			t.Errorf("flags lack %s: %v", want, args)
		}
	}
}

func TestDownRemovesNothingThatIsNotACluster(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Down(t.Context(), io.Discard); err == nil {
		t.Error("Down in a directory of something else: want an error")
	}
	if err := c.Up(t.Context(), Options{}, io.Discard); err == nil {
		t.Error("Up in a directory of something else: want an error")
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	absent, err := Open(filepath.Join(dir, "absent"))
	if err != nil {
		t.Fatal(err)
	}
	if err := absent.Down(t.Context(), io.Discard); err != nil {
		t.Errorf("Down where nothing is: %v", err)
	}
}
