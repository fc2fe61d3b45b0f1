package cli

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

const testToken = "a-Token_of-22-characters"

// sent is what a receiver saw.
type sent struct {
	Method, Proto, URI, ContentType, OperationID, Body string
}

// send runs the command and returns what it prints, with its error as the last line, as main would.
func send(ctx context.Context, stdin string, args ...string) (output string, err error) {
	cmd := newSendCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetArgs(args)
	if err = cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(&out, err)
	}
	return out.String(), err
}

// receiver answers every request alike and keeps what it saw.
func receiver(t *testing.T, status int, reply string) (base string, saw *[]sent) {
	t.Helper()
	saw = new([]sent)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*saw = append(*saw, sent{r.Method, r.Proto, r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get(openim.OperationIDHeader), string(body)})
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, reply)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/callbacks/demo/openim/" + testToken, saw
}

func TestSendPlaysOpenIM(t *testing.T) {
	const captured = `{"callbackCommand":"callbackAfterJoinGroupCommand", "groupID":"g"}`
	file := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(file, []byte(captured), 0o600); err != nil {
		t.Fatal(err)
	}
	server := func(members string) string {
		return `{"callbackCommand":"callbackAfterSetGroupInfoExCommand","operationID":"op",` + members + "}\n"
	}
	const path = "/callbacks/demo/openim/" + testToken
	cases := map[string]struct {
		args  []string
		stdin string
		uri   string
		body  string
	}{
		"the documented sample, as servers send it": {
			uri:  path + "/callbackAfterSetGroupInfoExCommand",
			body: server(`"groupID":"G002","groupName":"NewGroupName","notification":"Updated group notification","introduction":"Updated group introduction","faceURL":"http://example.com/new/path/to/face/image.png","ex":"Updated extra data","needVerification":0,"lookMemberInfo":1,"applyMemberFriend":0`),
		},
		"what is not told stays, what is empty is cleared": {
			args: []string{"--group-id", "<g>", "--ex", "", "--need-verification", "2"},
			uri:  path + "/callbackAfterSetGroupInfoExCommand",
			body: server(`"groupID":"\u003cg\u003e","groupName":null,"notification":null,"introduction":null,"faceURL":null,"ex":"","needVerification":2,"lookMemberInfo":null,"applyMemberFriend":null`),
		},
		"documented dialect, query form": {
			args: []string{"--dialect", "documented-nested", "--url-form", "query", "--group-name", "n", "--apply-member-friend", "1"},
			uri:  path + "?command=callbackAfterSetGroupInfoEXCommand&contenttype=json",
			body: `{"callbackCommand":"callbackAfterSetGroupInfoEXCommand","operationID":"op","groupInfoForSet":{"groupID":"G002","groupName":"n","applyMemberFriend":{"value":1}}}` + "\n",
		},
		"older spelling, both forms": {
			args: []string{"--command", "CALLBACKaftersetgroupinfocommandEX", "--url-form", "both", "--dialect", "documented-flat", "--introduction", "i"},
			uri:  path + "/CALLBACKaftersetgroupinfocommandEX?command=CALLBACKaftersetgroupinfocommandEX&contenttype=json",
			body: server(`"groupID":"G002","introduction":{"value":"i"}`),
		},
		"creation": {
			args: []string{"--command", "callbackAfterCreateGroupCommand", "--group-name", "n", "--owner-user-id", "u", "--create-time", "1795428377127", "--group-status", "0"},
			uri:  path + "/callbackAfterCreateGroupCommand",
			body: `{"callbackCommand":"callbackAfterCreateGroupCommand","operationID":"op","groupID":"G002","groupName":"n","notification":null,"introduction":null,"faceURL":null,"ownerUserID":"u","createTime":1795428377127,"memberCount":0,"ex":null,"status":0,"creatorUserID":null,"groupType":null,"needVerification":null,"lookMemberInfo":null,"applyMemberFriend":null,"notificationUpdateTime":0,"notificationUserID":"","initMemberList":[]}` + "\n",
		},
		"transfer": {
			args: []string{"--command", "callbackTransferGroupOwnerAfter"},
			uri:  path + "/callbackTransferGroupOwnerAfter",
			body: `{"callbackCommand":"callbackAfterTransferGroupOwnerCommand","operationID":"op","groupID":"G002","oldOwnerUserID":"","newOwnerUserID":"U001"}` + "\n",
		},
		"dismissal": {
			args: []string{"--command", "callbackAfterDisMissGroupCommand", "--group-id", "g"},
			uri:  path + "/callbackAfterDisMissGroupCommand",
			body: `{"callbackCommand":"callbackAfterDisMissGroupCommand","operationID":"op","groupID":"g","ownerID":"","groupType":"\u0002","membersID":[]}` + "\n",
		},
		"captured body: byte for byte, under its own command": {
			args: []string{"--file", file},
			uri:  path + "/callbackAfterJoinGroupCommand",
			body: captured,
		},
		"from standard input, under another command": {
			args:  []string{"--file", "-", "--command", "callbackAfterSendGroupMsgCommand"},
			stdin: captured,
			uri:   path + "/callbackAfterSendGroupMsgCommand",
			body:  captured,
		},
		"nothing that OpenIM would send": {
			args:  []string{"--file", "-"},
			stdin: "\xff",
			uri:   path + "/callbackAfterSetGroupInfoExCommand",
			body:  "\xff",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			base, saw := receiver(t, http.StatusOK, string(openim.OK().JSON()))
			t.Setenv(urlVariable, " "+base+"\n")
			output, err := send(t.Context(), tc.stdin, append(tc.args, "--operation-id", "op")...)
			if err != nil {
				t.Fatal(err)
			}
			want := []sent{{http.MethodPost, "HTTP/1.1", tc.uri, openim.ContentType, "op", tc.body}}
			if diff := cmp.Diff(want, *saw); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if !regexp.MustCompile(`^HTTP 200 OK in [0-9.]+[mµ]?s: accepted\n$`).MatchString(output) {
				t.Errorf("printed %q", output)
			}
		})
	}
}

func TestSendExplainsReplies(t *testing.T) {
	reply := func(r openim.Reply) string { return string(r.JSON()) }
	cases := map[string]struct {
		status int
		reply  string
		// path is what follows the host, if not what it should be.
		path string
		line string
		want string
	}{
		"refused token": {
			status: 401, reply: reply(openim.Reject(401, "no such token")),
			line: "HTTP 401 Unauthorized in T: refused: no such token (errCode 401)",
			want: "status.tokenSecretName",
		},
		"placeholder left": {
			status: 401, reply: reply(openim.Reject(401, "")), path: "/callbacks/demo/openim/TOKEN",
			line: "HTTP 401 Unauthorized in T: refused: (errCode 401)",
			want: "put the token where the word TOKEN stands",
		},
		"command is part of the URL": {
			status: 404, reply: reply(openim.Reject(404, "no such path")), path: "/callbacks/demo/openim/" + testToken + "/callbackAfterSetGroupInfoExCommand",
			line: "HTTP 404 Not Found in T: refused: no such path (errCode 404)",
			want: "OpenIM appends the command",
		},
		"command not taken": {
			status: 404, reply: reply(openim.Reject(404, "not served")),
			line: "HTTP 404 Not Found in T: refused: not served (errCode 404)",
			want: "disable it in webhooks.yml",
		},
		"another server": {
			status: 404, reply: "404 page\x1b[31m not\n\nfound",
			line: "HTTP 404 Not Found in T: not a reply that OpenIM understands: 404 page [31m not found",
			want: "something other than the receiver answers",
		},
		"codes in quotes": {
			status: 200, reply: `{"actionCode":"0"}`,
			line: `HTTP 200 OK in T: not a reply that OpenIM understands: {"actionCode":"0"}`,
			want: "something other than the receiver answers",
		},
		"failure under a good status": {
			status: 200, reply: reply(openim.Reject(5001, "no")),
			line: "HTTP 200 OK in T: refused: no (errCode 5001)",
			want: "OpenIM's client takes this reply as failure",
		},
		"good reply under a bad status": {
			status: 500, reply: reply(openim.OK()),
			line: "HTTP 500 Internal Server Error in T: accepted",
			want: "receiver's log",
		},
		"gateway": {
			status: 502, reply: "",
			line: "HTTP 502 Bad Gateway in T: no reply",
			want: "a proxy in front of the receiver",
		},
		"not ready": {
			status: 503, reply: reply(openim.Reject(503, "just started")),
			line: "HTTP 503 Service Unavailable in T: refused: just started (errCode 503)",
			want: "try again",
		},
		"redirect is not followed": {
			status: 301, reply: "",
			line: "HTTP 301 Moved Permanently in T: no reply",
			want: "redirects",
		},
		"too large": {
			status: 413, reply: reply(openim.Reject(413, "large")),
			line: "HTTP 413 Request Entity Too Large in T: refused: large (errCode 413)",
			want: "too large",
		},
		"unreadable body": {
			status: 400, reply: reply(openim.Reject(400, "groupID: missing")),
			line: "HTTP 400 Bad Request in T: refused: groupID: missing (errCode 400)",
			want: "says above",
		},
		"long reply": {
			status: 500, reply: strings.Repeat("x", 1<<20+1),
			line: "HTTP 500 Internal Server Error in T: not a reply that OpenIM understands: " + strings.Repeat("x", maxShownBytes-len("not a reply that OpenIM understands: ")) + " …",
			want: "proxy",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			base, saw := receiver(t, tc.status, tc.reply)
			if tc.path != "" {
				base = base[:strings.Index(base, "/callbacks")] + tc.path
			}
			output, err := send(t.Context(), "", "--url", base)
			if err == nil {
				t.Fatalf("no error: %s", output)
			}
			line, rest, _ := strings.Cut(output, "\n")
			line = regexp.MustCompile(` in [0-9.]+[mµ]?s:`).ReplaceAllString(line, " in T:")
			if diff := cmp.Diff(tc.line, line); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if !strings.Contains(rest, tc.want) {
				t.Errorf("%q does not say %q", rest, tc.want)
			}
			if len(*saw) != 1 {
				t.Errorf("%d requests, want one try", len(*saw))
			}
			if strings.Contains(output, testToken) {
				t.Errorf("the token is printed: %s", output)
			}
		})
	}
}

// tlsServer does not log that handshakes fail.
func tlsServer(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func TestSendExplainsFailures(t *testing.T) {
	accept := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(openim.OK().JSON()) })
	secure := tlsServer(t, accept)
	open := httptest.NewServer(accept)
	t.Cleanup(open.Close)
	hangUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(hangUp.Close)
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(release) })
	closed := httptest.NewServer(accept)
	closed.Close()

	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(secure.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	const path = "/callbacks/demo/openim/" + testToken
	cases := map[string]struct {
		args []string
		want string // "" if it works
	}{
		"TLS with the CA":         {[]string{"--url", secure.URL + path, "--ca-file", ca}, ""},
		"TLS without the CA":      {[]string{"--url", secure.URL + path}, "--ca-file"},
		"TLS for another host":    {[]string{"--url", "https://localhost:" + port + path, "--ca-file", ca}, "for another host"},
		"TLS where there is none": {[]string{"--url", "https" + strings.TrimPrefix(open.URL, "http") + path}, "start the URL with http://"},
		"no TLS where there is":   {[]string{"--url", "http" + strings.TrimPrefix(secure.URL, "https") + path}, "start the URL with https://"},
		"no CA in the file":       {[]string{"--url", secure.URL + path, "--ca-file", os.DevNull}, "no certificate"},
		"no such CA file":         {[]string{"--url", secure.URL + path, "--ca-file", ca + testToken}, "read --ca-file"},
		"nobody listens":          {[]string{"--url", closed.URL + path}, "kubectl port-forward"},
		"unknown host":            {[]string{"--url", "http://receiver.invalid" + path, "--timeout", "2s"}, "http://receiver.invalid/callbacks/demo/openim/TOKEN"},
		"closed connection":       {[]string{"--url", hangUp.URL + path}, "closed the connection"},
		"no reply in time":        {[]string{"--url", silent.URL + path, "--timeout", "50ms"}, "no reply from"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			output, err := send(t.Context(), "", tc.args...)
			if (err == nil) != (tc.want == "") || !strings.Contains(output, tc.want) {
				t.Errorf("%q does not say %q (%v)", output, tc.want, err)
			}
			if strings.Contains(output, `Post "`) {
				t.Errorf("Go's error is shown with its URL: %s", output)
			}
			if strings.Contains(output, testToken) {
				t.Errorf("the token is printed: %s", output)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if output, _ := send(ctx, "", "--url", silent.URL+path); !strings.Contains(output, "interrupted") {
			t.Errorf("printed %q", output)
		}
	})
}

func TestSendRefusesFlags(t *testing.T) {
	const base = "http://h/callbacks/demo/openim/" + testToken
	cases := map[string]struct {
		args []string
		want string
	}{
		"no URL":                         {nil, "$GROUPINFO_CALLBACK_URL"},
		"no scheme":                      {[]string{"--url", "h/callbacks/demo/openim/" + testToken}, "malformed"},
		"other scheme":                   {[]string{"--url", "ftp" + base[4:]}, "malformed"},
		"bad escape":                     {[]string{"--url", base + "%zz"}, "malformed"},
		"bad port":                       {[]string{"--url", "http://h:" + testToken + "/"}, "malformed"},
		"query":                          {[]string{"--url", base + "?contenttype=json"}, "must end with its path"},
		"URL as argument":                {[]string{base}, "with --url"},
		"one dash":                       {[]string{"-url", base}, "two dashes"},
		"one dash and =":                 {[]string{"-url=" + base}, "two dashes"},
		"URL as flag":                    {[]string{"--" + base}, "malformed"},
		"unknown flag":                   {[]string{"--uri=" + base}, "unknown flag: --uri"},
		"flag without value":             {[]string{"--url"}, "needs an argument"},
		"URL as number":                  {[]string{"--need-verification", base}, "--need-verification is not a number"},
		"URL as duration":                {[]string{"--timeout", base}, "--timeout is not a duration"},
		"number too large":               {[]string{"--url", base, "--group-type", "2147483648"}, "--group-type"},
		"unknown command":                {[]string{"--url", base, "--command", testToken}, "--command"},
		"command without a body of ours": {[]string{"--url", base, "--command", "callbackAfterJoinGroupCommand"}, "this version reads only"},
		"unknown dialect":                {[]string{"--url", base, "--dialect", testToken}, "--dialect must be one of server, "},
		"unknown form":                   {[]string{"--url", base, "--url-form", testToken}, "--url-form must be one of path, "},
		"dialect that the command has not": {
			[]string{"--url", base, "--command", "callbackAfterDisMissGroupCommand", "--dialect", "documented-flat"}, `use "server"`},
		"field that the command has not": {[]string{"--url", base, "--owner-user-id", "u"}, "can tell only"},
		"file and field":                 {[]string{"--url", base, "--file", "-", "--ex", ""}, "file"},
		"file and group":                 {[]string{"--url", base, "--file", "-", "--group-id", "g"}, "file"},
		"no such file":                   {[]string{"--url", base, "--file", "/nowhere/" + testToken}, "read --file"},
		"group without ID":               {[]string{"--url", base, "--group-id", ""}, "groupID"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv(urlVariable, "")
			output, err := send(t.Context(), "", append([]string{"--dry-run"}, tc.args...)...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q does not say %q", output, tc.want)
			}
			if strings.Contains(output, testToken) {
				t.Errorf("the token is printed: %s", output)
			}
		})
	}
}

func TestSendDryRun(t *testing.T) {
	base, saw := receiver(t, http.StatusOK, "{}")
	output, err := send(t.Context(), "{}", "--url", base, "--dry-run", "--operation-id", "op", "--file", "-")
	if err != nil {
		t.Fatal(err)
	}
	want := "POST " + strings.ReplaceAll(base, testToken, "TOKEN") + `/callbackAfterSetGroupInfoExCommand
Content-Type: application/json; charset=utf-8
Operationid: op

{}
`
	if diff := cmp.Diff(want, output); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(*saw) != 0 {
		t.Error("the callback was sent")
	}
}

func TestHelpDoesNotTellTheURL(t *testing.T) {
	t.Setenv(urlVariable, "http://h/callbacks/demo/openim/"+testToken)
	output, err := send(t.Context(), "", "--help")
	if err != nil || strings.Contains(output, testToken) || !strings.Contains(output, "--need-verification") {
		t.Errorf("%v: %s", err, output)
	}
}

func TestMaskedURL(t *testing.T) {
	cases := map[string]struct{ base, want string }{
		"the receiver's":            {"http://h:1/callbacks/ns/oim/" + testToken, "http://h:1/callbacks/ns/oim/TOKEN"},
		"short token":               {"http://h/callbacks/ns/oim/t", "http://h/callbacks/ns/oim/TOKEN"},
		"slashes":                   {"http://h//callbacks//ns/oim//" + testToken + "/", "http://h//callbacks//ns/oim//TOKEN/"},
		"no token":                  {"http://h/callbacks/ns/oim", "http://h/callbacks/ns/oim"},
		"long names":                {"http://h/callbacks/a-namespace-of-many-characters/an-openimserver-of-many-characters/t", "http://h/callbacks/a-namespace-of-many-characters/an-openimserver-of-many-characters/TOKEN"},
		"with a command":            {"http://h/callbacks/ns/oim/t/callbackAfterSetGroupInfoCommand", "http://h/callbacks/ns/oim/TOKEN/callbackAfterSetGroupInfoCommand"},
		"server missing, command":   {"http://h/callbacks/ns/" + testToken + "/callbackQuitGroupCommand", "http://h/callbacks/ns/TOKEN/callbackQuitGroupCommand"},
		"server missing":            {"http://h/callbacks/ns/" + testToken, "http://h/callbacks/ns/TOKEN"},
		"other path":                {"http://h/callback/ns/oim/" + testToken, "http://h/callback/ns/oim/TOKEN"},
		"behind a prefix":           {"http://h/openim/callbacks/ns/oim/t", "http://h/openim/callbacks/ns/oim/TOKEN"},
		"escaped":                   {"http://h/c%61llbacks/ns/oim/a%2Fb", "http://h/c%61llbacks/ns/oim/TOKEN"},
		"more than there should be": {"http://h/callbacks/ns/oim/x/t", "http://h/callbacks/ns/oim/TOKEN/TOKEN"},
		"user":                      {"http://user:password@h/callbacks/ns/oim/t", "http://h/callbacks/ns/oim/TOKEN"},
		"no path":                   {"http://h", "http://h"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u, err := parseCallbackURL(tc.base)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, u.masked); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Whatever goes wrong, and whoever repeats the URL: the token is not printed.
func TestTokenIsNeverPrinted(t *testing.T) {
	var reply func(r *http.Request) (status int, body string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body := reply(r)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	closed := httptest.NewServer(nil)
	closed.Close()
	secure := tlsServer(t, nil)

	rapid.Check(t, func(t *rapid.T) {
		token := rapid.StringMatching(`[A-Za-z0-9._~-]{21}[A-Z]`).Draw(t, "token")
		echo := rapid.SampledFrom([]func(*http.Request) string{
			func(r *http.Request) string { return "Cannot POST " + r.RequestURI },
			func(r *http.Request) string { return strings.Repeat("x", maxShownBytes-30) + r.URL.Path },
			func(r *http.Request) string { return "\x00" + html.EscapeString(r.RequestURI) },
			func(r *http.Request) string { return string(openim.Reject(401, r.RequestURI).JSON()) },
			func(r *http.Request) string { return `{"errMsg":"` + url.QueryEscape(r.URL.Path) + `","nextCode":1}` },
		}).Draw(t, "echo")
		status := rapid.SampledFrom([]int{200, 301, 400, 401, 404, 500, 503}).Draw(t, "status")
		reply = func(r *http.Request) (int, string) { return status, echo(r) }

		host := rapid.SampledFrom([]string{server.URL, closed.URL, secure.URL, "http://[::1", "http://h:x", "gopher://h", ""}).Draw(t, "host")
		path := rapid.SampledFrom([]string{"/callbacks/ns/oim/", "/callbacks/ns/", "/callbacks/", "/", "/callback/ns/oim/", "//callbacks/ns/oim//", "/a/callbacks/ns/oim/"}).Draw(t, "path")
		suffix := rapid.SampledFrom([]string{"", "/", "/callbackAfterSetGroupInfoExCommand", "?x=y", "#z", "%", "\x7f", " "}).Draw(t, "suffix")
		base := host + path + token + suffix
		args := rapid.SampledFrom([][]string{
			{"--url", base}, {"--url=" + base}, {"-url", base}, {"-url=" + base}, {base}, {"--" + base}, {"-" + base},
			{"--url", base, "--dry-run"}, {"--url", base, "--command", "x"}, {"--url", base, "--file", base},
			{"--url", base, "--ca-file", base}, {"--timeout", base}, {"--create-time", base}, {"--url", base, "--dialect", base},
		}).Draw(t, "args")

		if output, _ := send(context.Background(), "", args...); strings.Contains(output, token) {
			t.Fatalf("%q prints %s", args, output)
		}
	})
}
