package verifier

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// SecretName is the default name of the projected Secret, in the operator's namespace.
const SecretName = "groupinfo-operator-verifiers"

// digest is the SHA-256 of a token. Tokens are long and random, so a plain hash keeps them: there is nothing to guess.
type digest = [sha256.Size]byte

// Verifier checks the tokens of one OpenIMServer.
type Verifier struct {
	tokens []digest
}

// wire is the JSON of a Verifier in the Secret. Unknown members are for newer versions.
type wire struct {
	TokenSHA256 []string `json:"tokenSHA256"`
}

// New returns the verifier that accepts the tokens.
func New(tokens ...string) Verifier {
	v := Verifier{}
	for _, token := range tokens {
		v.tokens = append(v.tokens, sha256.Sum256([]byte(token)))
	}
	// In order, so that the same tokens give the same bytes.
	slices.SortFunc(v.tokens, func(a, b digest) int { return slices.Compare(a[:], b[:]) })
	return v
}

// Accepts reports whether the token is one of the verifier's. How long it takes depends on how many tokens there are and
// on how long the given one is, not on what they hold.
func (v Verifier) Accepts(token string) bool {
	given := sha256.Sum256([]byte(token))
	accepted := 0
	for _, valid := range v.tokens {
		accepted |= subtle.ConstantTimeCompare(given[:], valid[:])
	}
	return accepted == 1
}

// MarshalJSON implements json.Marshaler.
func (v Verifier) MarshalJSON() ([]byte, error) {
	w := wire{TokenSHA256: []string{}}
	for _, token := range v.tokens {
		w.TokenSHA256 = append(w.TokenSHA256, base64.StdEncoding.EncodeToString(token[:]))
	}
	return json.Marshal(w)
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Verifier) UnmarshalJSON(data []byte) error {
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("verifier is not the expected JSON (%d bytes)", len(data))
	}
	v.tokens = nil
	for i, encoded := range w.TokenSHA256 {
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(raw) != sha256.Size {
			return fmt.Errorf("tokenSHA256[%d] is not a SHA-256 in base64", i)
		}
		v.tokens = append(v.tokens, digest(raw))
	}
	return nil
}

// Key returns the key of an OpenIMServer in the projected Secret. Namespaces and OpenIMServers are named by DNS labels,
// which hold no dot, so no two share a key.
func Key(server types.NamespacedName) string { return server.Namespace + "." + server.Name }

// Set holds the verifiers of all active OpenIMServers.
type Set map[types.NamespacedName]Verifier

// decoy is checked where there is no such OpenIMServer, so that an unknown server costs what a wrong token costs.
var decoy = New("an unknown OpenIMServer has this token, which nobody can send: a space has no place in a path")

// Accepts reports whether the token is one of the server's. Unknown servers accept nothing.
func (s Set) Accepts(server types.NamespacedName, token string) bool {
	v, known := s[server]
	if !known {
		v = decoy
	}
	return v.Accepts(token) && known
}

// FromSecret reads the data of the projected Secret. Entries that cannot be read are left out and told in the error,
// which names keys only; the others still count.
func FromSecret(data map[string][]byte) (Set, error) {
	set := Set{}
	var unreadable []string
	for key, value := range data {
		namespace, name, found := strings.Cut(key, ".")
		var v Verifier
		if err := json.Unmarshal(value, &v); !found || err != nil {
			unreadable = append(unreadable, key)
			continue
		}
		set[types.NamespacedName{Namespace: namespace, Name: name}] = v
	}
	if len(unreadable) > 0 {
		slices.Sort(unreadable)
		return set, fmt.Errorf("verifiers cannot be read: %s", strings.Join(unreadable, ", "))
	}
	return set, nil
}
