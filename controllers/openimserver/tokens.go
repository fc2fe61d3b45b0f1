package openimserver

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

const (
	// tokenKey is the key of a Secret's main token; every key that begins with tokenKeyPrefix holds a further one.
	tokenKey       = "token"
	tokenKeyPrefix = "token-"

	// minTokenLength is 128 bits in base64. A token is all that proves a callback, and a verifier is a plain hash of it.
	minTokenLength = 22
	maxTokenLength = 256

	// maxTokens are enough for any rotation. The verifiers of all tenants share one Secret of at most 1 MiB, of which none
	// may take more than its part.
	maxTokens = 8
)

// unescaped matches what can stand in a URL path as it is. OpenIM appends to the configured URL and escapes nothing.
var unescaped = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)

// secretName returns the name of the Secret with the server's tokens, and whether the user chose it.
func secretName(server *openimv1.OpenIMServer) (name string, chosen bool) {
	if name := server.Spec.Callbacks.SecretRef.Name; name != "" {
		return name, true
	}
	return server.Name + "-callback-token", false
}

// newToken returns a random token of 43 characters.
func newToken() string {
	random := make([]byte, 32)
	for {
		// crypto/rand never fails.
		_, _ = rand.Read(random)
		if token := base64.RawURLEncoding.EncodeToString(random); tokenFault(token) == "" {
			return token
		}
	}
}

// readTokens returns the valid tokens of a Secret, and for each that is not what is wrong with it.
func readTokens(data map[string][]byte) (valid []string, faults []string) {
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if key != tokenKey && !strings.HasPrefix(key, tokenKeyPrefix) {
			continue
		}
		token := strings.TrimSpace(string(data[key]))
		if fault := tokenFault(token); fault != "" {
			faults = append(faults, fmt.Sprintf("key %s %s", key, fault))
			continue
		}
		if len(valid) == maxTokens {
			faults = append(faults, fmt.Sprintf("key %s is one more than the %d tokens that can be in force", key, maxTokens))
			break
		}
		valid = append(valid, token)
	}
	if len(valid)+len(faults) == 0 {
		faults = append(faults, fmt.Sprintf("it has neither a key %s nor one that begins with %s", tokenKey, tokenKeyPrefix))
	}
	return valid, faults
}

// tokenFault says what is wrong with a token, or nothing.
func tokenFault(token string) string {
	switch {
	case len(token) < minTokenLength:
		return fmt.Sprintf("has fewer than %d characters", minTokenLength)
	case len(token) > maxTokenLength:
		return fmt.Sprintf("has more than %d characters", maxTokenLength)
	case !unescaped.MatchString(token):
		return "has characters other than letters, digits and -._~"
	case strings.HasPrefix(strings.ToLower(token), "callback"):
		return "begins with callback, as only commands do"
	}
	return ""
}
