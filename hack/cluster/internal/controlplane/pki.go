package controlplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity of every certificate: longer than anyone keeps a development cluster.
const validity = 365 * 24 * time.Hour

// authority is the cluster's certificate authority. Its key stays in memory: a cluster gets all its certificates when
// it starts.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

// keyPair is a certificate with its key, both PEM.
type keyPair struct{ certificate, key []byte }

func newAuthority() (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(pkix.Name{CommonName: "groupinfo-operator-development-ca"})
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{certificate: certificate, key: key, pem: encode("CERTIFICATE", der)}, nil
}

// server issues a certificate for a server at the given names and addresses.
func (a *authority) server(names []string, addresses []net.IP) (keyPair, error) {
	template, err := newTemplate(pkix.Name{CommonName: names[0]})
	if err != nil {
		return keyPair{}, err
	}
	template.DNSNames, template.IPAddresses = names, addresses
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.issue(template)
}

// client issues a certificate that Kubernetes takes for the given user and groups.
func (a *authority) client(user string, groups ...string) (keyPair, error) {
	template, err := newTemplate(pkix.Name{CommonName: user, Organization: groups})
	if err != nil {
		return keyPair{}, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(template)
}

func (a *authority) issue(template *x509.Certificate) (keyPair, error) {
	key, err := newKey()
	if err != nil {
		return keyPair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("issue certificate for %s: %w", template.Subject.CommonName, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{certificate: encode("CERTIFICATE", der), key: keyPEM}, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newTemplate(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    now.Add(-time.Hour), // tolerate a clock that is set back
		NotAfter:     now.Add(validity),
	}, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encode("EC PRIVATE KEY", der), nil
}

// publicKey encodes the public half of a signing key.
func publicKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return encode("PUBLIC KEY", der), nil
}

// writePKI creates the cluster's keys and certificates, and a kubeconfig for the administrator and for each component
// that is a client of the API server.
func (c *Cluster) writePKI() error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	server, err := ca.server(
		[]string{"kubernetes.default.svc", "kubernetes", "kubernetes.default", "localhost"},
		[]net.IP{net.ParseIP(c.state.Address), net.ParseIP(serviceIP)})
	if err != nil {
		return err
	}
	serviceAccounts, err := newKey()
	if err != nil {
		return err
	}
	signing, err := encodeKey(serviceAccounts)
	if err != nil {
		return err
	}
	verifying, err := publicKey(serviceAccounts)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		caFile:                ca.pem,
		serverCertFile:        server.certificate,
		serverKeyFile:         server.key,
		serviceAccountKeyFile: signing,
		serviceAccountPubFile: verifying,
	}
	for file, identity := range map[string]struct{ user, group string }{
		kubeconfigFile:                  {"admin", "system:masters"},
		controllerManagerKubeconfigFile: {user: "system:kube-controller-manager"},
		schedulerKubeconfigFile:         {user: "system:kube-scheduler"},
	} {
		var groups []string
		if identity.group != "" {
			groups = []string{identity.group}
		}
		client, err := ca.client(identity.user, groups...)
		if err != nil {
			return err
		}
		if file == kubeconfigFile {
			files[adminCertFile], files[adminKeyFile] = client.certificate, client.key
		}
		files[file] = kubeconfig(c.url(c.state.Ports.APIServer), identity.user, ca.pem, client)
	}
	for file, content := range files {
		path := c.path(file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
