package webhook

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func parsed(t *testing.T, target string) (route, bool) {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	return parseRoute(u)
}

func TestParseRoute(t *testing.T) {
	const token, command = "a-token-of-26-characters-x", "callbackAfterSetGroupInfoExCommand"
	demo := types.NamespacedName{Namespace: "chat", Name: "demo"}
	for name, tc := range map[string]struct {
		target string
		want   route
	}{
		"token and command":                {"/callbacks/chat/demo/" + token + "/" + command, route{demo, token, command}},
		"token alone":                      {"/callbacks/chat/demo/" + token, route{demo, token, ""}},
		"command alone":                    {"/callbacks/chat/demo/" + command, route{demo, "", command}},
		"neither":                          {"/callbacks/chat/demo", route{demo, "", ""}},
		"a command in capitals":            {"/callbacks/chat/demo/CALLBACKAFTERX", route{demo, "", "CALLBACKAFTERX"}},
		"a command in small letters":       {"/callbacks/chat/demo/callbackafterx", route{demo, "", "callbackafterx"}},
		"a command that is no more":        {"/callbacks/chat/demo/callback", route{demo, "", "callback"}},
		"a token that is nearly a command": {"/callbacks/chat/demo/callbac", route{demo, "callbac", ""}},
		"a command in the token's place":   {"/callbacks/chat/demo/callbackX/callbackY", route{demo, "callbackX", "callbackY"}},
		"what is no command, as command":   {"/callbacks/chat/demo/" + token + "/more", route{demo, token, "more"}},

		"command in the query":                     {"/callbacks/chat/demo/" + token + "?command=" + command + "&contenttype=json", route{demo, token, command}},
		"command in the query, no token":           {"/callbacks/chat/demo?command=" + command, route{demo, "", command}},
		"contenttype beside the path's command":    {"/callbacks/chat/demo/" + token + "/" + command + "?contenttype=json", route{demo, token, command}},
		"the same command twice":                   {"/callbacks/chat/demo/" + token + "/" + command + "?command=" + command, route{demo, token, command}},
		"the same command twice, in another case":  {"/callbacks/chat/demo/" + token + "/" + command + "?command=" + strings.ToUpper(command), route{demo, token, command}},
		"an empty command in the query":            {"/callbacks/chat/demo/" + token + "?command=", route{demo, token, ""}},
		"a slash at the end":                       {"/callbacks/chat/demo/" + token + "/", route{demo, token, ""}},
		"the url in webhooks.yml ends in a slash":  {"/callbacks/chat/demo/" + token + "//" + command, route{demo, token, command}},
		"slashes everywhere":                       {"//callbacks///chat//demo//" + token + "//" + command + "//", route{demo, token, command}},
		"an escaped letter is the letter":          {"/callbacks/chat/d%65mo/" + token + "/c%61llbackX", route{demo, token, "callbackX"}},
		"an escaped slash is no separator":         {"/callbacks/chat/demo%2Fx/a%2Fb", route{types.NamespacedName{Namespace: "chat", Name: "demo/x"}, "a/b", ""}},
		"an escaped slash makes no segment either": {"/callbacks/chat/%2F/" + token, route{types.NamespacedName{Namespace: "chat", Name: "/"}, token, ""}},
		"dots are not followed":                    {"/callbacks/chat/../demo/x", route{types.NamespacedName{Namespace: "chat", Name: ".."}, "demo", "x"}},
		"an escaped percent sign":                  {"/callbacks/chat/demo/a%2541", route{demo, "a%41", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parsed(t, tc.target)
			if !ok {
				t.Fatal("no route")
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(route{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseRouteRefuses(t *testing.T) {
	for name, target := range map[string]string{
		"the root":                          "/",
		"nothing behind callbacks":          "/callbacks",
		"no name":                           "/callbacks/chat",
		"no name, but slashes":              "/callbacks/chat//",
		"another root":                      "/callback/chat/demo/token",
		"callbacks in capitals":             "/Callbacks/chat/demo/token",
		"callbacks further down":            "/x/callbacks/chat/demo/token",
		"too many segments":                 "/callbacks/chat/demo/token/callbackX/more",
		"too many segments after slashes":   "/callbacks//chat//demo//token//callbackX//more",
		"another command in the query":      "/callbacks/chat/demo/token/callbackX?command=callbackY",
		"an empty one beside the path's":    "/callbacks/chat/demo/token/callbackX?command=",
		"two commands in the query":         "/callbacks/chat/demo/token?command=callbackX&command=callbackY",
		"the same command twice in it":      "/callbacks/chat/demo/token?command=callbackX&command=callbackX",
		"two in the query, one in the path": "/callbacks/chat/demo/token/callbackX?command=callbackX&command=callbackX",
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := parsed(t, target); ok {
				t.Errorf("is a route: %+v", got)
			}
		})
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add("/callbacks/chat/demo/token/callbackX?command=callbackX")
	f.Add("/callbacks/%2f/%/?command=%zz")
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Skip("no server gets to see it")
		}
		got, ok := parseRoute(u)
		if !ok {
			if got != (route{}) {
				t.Errorf("no route, and yet %+v", got)
			}
			return
		}
		if got.server.Namespace == "" || got.server.Name == "" {
			t.Errorf("a route to no server: %+v", got)
		}
		// More slashes say nothing more.
		query := ""
		if u.RawQuery != "" {
			query = "?" + u.RawQuery
		}
		more, err := url.ParseRequestURI("/" + strings.ReplaceAll(u.EscapedPath(), "/", "//") + "/" + query)
		if err != nil {
			t.Fatal(err)
		}
		if again, ok := parseRoute(more); !ok || again != got {
			t.Errorf("with more slashes %+v becomes %+v", got, again)
		}
	})
}

func TestIsJSON(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/json":                  true,
		"application/json; charset=utf-8":   true,
		"Application/JSON;charset=\"utf8\"": true,
		" application/json ":                true,
		"application/json;":                 true,
		"":                                  false,
		"text/plain":                        false,
		"text/plain; application/json":      false,
		"application/jsonp":                 false,
		"application/x-www-form-urlencoded": false,
	} {
		if got := isJSON(&http.Request{Header: http.Header{"Content-Type": {contentType}}}); got != want {
			t.Errorf("%q: %v, want %v", contentType, got, want)
		}
	}
}
