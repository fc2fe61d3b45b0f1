package controlplane

import (
	"encoding/base64"
	"fmt"
)

// kubeconfigFormat takes server, CA, user, client certificate and key. Everything is inline, so that the file can be
// copied and named by a relative path.
const kubeconfigFormat = `apiVersion: v1
kind: Config
current-context: groupinfo-operator
contexts:
- name: groupinfo-operator
  context:
    cluster: groupinfo-operator
    user: %[3]q
clusters:
- name: groupinfo-operator
  cluster:
    server: %[1]s
    certificate-authority-data: %[2]s
users:
- name: %[3]q
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
`

func kubeconfig(server, user string, ca []byte, client keyPair) []byte {
	encode := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, kubeconfigFormat, server, encode(ca), user, encode(client.certificate), encode(client.key))
}
