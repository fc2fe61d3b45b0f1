package webhook

import (
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// routeTemplate is what logs and metrics say instead of a request's path, which holds the token.
const routeTemplate = "/callbacks/<namespace>/<name>/<token>/<command>"

// route is what a request's URL says.
type route struct {
	server  types.NamespacedName
	token   string
	command string
}

// parseRoute reads /callbacks/<namespace>/<name>[/<token>][/<command>], with the command as a query parameter as well:
// servers up to 3.4 send it there, and some documentation pages show both. It reports false for any other URL, and for
// one that names two commands.
//
// Empty segments do not count: OpenIM appends "/<command>" to the configured URL, which may end in a slash.
func parseRoute(u *url.URL) (route, bool) {
	var segments []string
	for raw := range strings.SplitSeq(u.EscapedPath(), "/") {
		if raw == "" {
			continue
		}
		segment, err := url.PathUnescape(raw)
		if err != nil {
			return route{}, false
		}
		segments = append(segments, segment)
	}
	if len(segments) < 3 || len(segments) > 5 || segments[0] != "callbacks" {
		return route{}, false
	}
	r := route{server: types.NamespacedName{Namespace: segments[1], Name: segments[2]}}
	rest := segments[3:]
	if len(rest) > 0 && (len(rest) == 2 || !isCommand(rest[0])) {
		r.token, rest = rest[0], rest[1:]
	}
	if len(rest) > 0 {
		r.command = rest[0]
	}
	query := u.Query()["command"]
	switch {
	case len(query) > 1, len(query) == 1 && r.command != "" && !strings.EqualFold(query[0], r.command):
		return route{}, false
	case len(query) == 1 && r.command == "":
		r.command = query[0]
	}
	return r, true
}

// isCommand tells a command from a token. All of OpenIM's commands begin like this, and no token may.
func isCommand(segment string) bool {
	return len(segment) >= len("callback") && strings.EqualFold(segment[:len("callback")], "callback")
}

// isJSON reports whether the request's content type is JSON, whatever its parameters.
func isJSON(r *http.Request) bool {
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "application/json")
}
