package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

const (
	// urlVariable keeps the token out of the shell's history and the list of processes.
	urlVariable = "GROUPINFO_CALLBACK_URL"

	// maxFileBytes bounds a body from a file. It is well above what the receiver takes, so that its refusal can be seen.
	maxFileBytes = 64 << 20

	// maxReplyBytes bounds a reply. The receiver's have some 300 bytes.
	maxReplyBytes = 1 << 20
)

// sendOptions are the flags of send.
type sendOptions struct {
	url         string
	command     string
	dialect     string
	urlForm     string
	operationID string
	groupID     string
	group       openim.GroupFields
	file        string
	timeout     time.Duration
	caFile      string
	dryRun      bool
}

func newSendCommand() *cobra.Command {
	var o sendOptions
	cmd := &cobra.Command{
		Use:   "send",
		Short: "Play an OpenIM callback",
		Long: `send plays OpenIM: it sends one callback, just as OpenIM does, and says how OpenIM would understand the reply.

The URL is what stands as url in OpenIM's webhooks.yml. Give it in $` + urlVariable + ` to keep its token out of the
shell's history. The token is never printed.

A field whose flag is not given is not told, and the group keeps it; one that is given as "" is cleared. Without any
field, send tells the sample of OpenIM's documentation.`,
		Example: `  # The sample of OpenIM's documentation
  token=$(kubectl get secret <openimserver>-callback-token -o jsonpath='{.data.token}' | base64 -d)
  export ` + urlVariable + `="http://<host>/callbacks/<namespace>/<openimserver>/$token"
  groupinfo-operator send

  # Rename a group and clear its ex
  groupinfo-operator send --group-id G002 --group-name Renamed --ex ""

  # Dismiss it
  groupinfo-operator send --group-id G002 --command ` + string(openim.AfterDismissGroup) + `

  # Send a captured body again; show it only
  groupinfo-operator send --file body.json --dry-run`,
		// cobra.NoArgs repeats the argument, which may be the URL.
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return errors.New("send takes flags only: give the URL with --url or $" + urlVariable)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			spelled := cmd.Flags().Changed("command")
			return o.run(cmd.Context(), spelled, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })

	flags := cmd.Flags()
	// Its default is read when it is needed: the help would print it.
	flags.StringVar(&o.url, "url", "", "callback URL as in webhooks.yml; by default $"+urlVariable)
	flags.StringVar(&o.command, "command", string(openim.AfterSetGroupInfoEx), "OpenIM's name of the callback, in any spelling; with --file by default the one in the body")
	flags.StringVar(&o.urlForm, "url-form", string(openim.URLFormPath), "where the URL names the command: "+list(openim.URLForms()))
	flags.StringVar(&o.dialect, "dialect", string(openim.DialectServer), "how the body is written: "+list(openim.Dialects()))
	flags.StringVar(&o.file, "file", "", "send the bytes of this file, or of standard input (-), as they are")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Second, "give up after this time; OpenIM's default is 5s")
	flags.StringVar(&o.caFile, "ca-file", "", "PEM file with certificates to trust besides the system's, as OpenIM does not")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print the request instead of sending it")
	flags.StringVar(&o.operationID, "operation-id", "", "OpenIM's ID for tracing, in the header and the body")
	flags.StringVar(&o.groupID, "group-id", openim.Documented().GroupID, "the group")

	fields := pflag.NewFlagSet("", pflag.ContinueOnError)
	g := &o.group
	fields.Var(textField{&g.GroupName}, "group-name", "the group's name")
	fields.Var(textField{&g.Notification}, "notification", "announcement")
	fields.Var(textField{&g.Introduction}, "introduction", "description")
	fields.Var(textField{&g.FaceURL}, "face-url", "address of the picture")
	fields.Var(textField{&g.Ex}, "ex", "the application's own data")
	fields.Var(numberField[int32]{&g.NeedVerification}, "need-verification", "0 applications need approval, 1 invitations as well, 2 nothing does")
	fields.Var(numberField[int32]{&g.LookMemberInfo}, "look-member-info", "0 members may see each other's profiles, 1 they may not")
	fields.Var(numberField[int32]{&g.ApplyMemberFriend}, "apply-member-friend", "0 members may become friends, 1 they may not")
	fields.Var(textField{&g.OwnerUserID}, "owner-user-id", "the owner, of a new group or after a transfer")
	fields.Var(textField{&g.CreatorUserID}, "creator-user-id", "the creator of a new group")
	fields.Var(numberField[int32]{&g.GroupType}, "group-type", "the kind of a new group, mostly 2")
	fields.Var(numberField[int32]{&g.GroupStatus}, "group-status", "the status of a new group: 0 in use, 1 banned, 2 dismissed, 3 muted")
	fields.Var(numberField[int64]{&g.CreateTime}, "create-time", "when a new group was created, in Unix milliseconds")
	flags.AddFlagSet(fields)
	fields.VisitAll(func(f *pflag.Flag) { cmd.MarkFlagsMutuallyExclusive("file", f.Name) })
	cmd.MarkFlagsMutuallyExclusive("file", "dialect")
	cmd.MarkFlagsMutuallyExclusive("file", "group-id")
	return cmd
}

// run sends the callback, or shows it. Whether --command was spelled out decides what the URL says.
func (o *sendOptions) run(ctx context.Context, spelled bool, in io.Reader, out io.Writer) error {
	target, err := parseCallbackURL(cmp.Or(o.url, os.Getenv(urlVariable)))
	if err != nil {
		return err
	}
	command, body, err := o.callback(spelled, in)
	if err != nil {
		return errors.New(target.redact(err.Error()))
	}
	form := openim.URLForm(o.urlForm)
	if !slices.Contains(openim.URLForms(), form) {
		return fmt.Errorf("--url-form must be one of %s", list(openim.URLForms()))
	}
	header := http.Header{
		"Content-Type":           {openim.ContentType},
		openim.OperationIDHeader: {cmp.Or(o.operationID, rand.Text())},
	}
	if o.dryRun {
		return show(out, openim.URL(target.masked, form, command), header, body)
	}

	client, err := o.client()
	if err != nil {
		return errors.New(target.redact(err.Error()))
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, openim.URL(target.base, form, command), bytes.NewReader(body))
	if err != nil {
		return errors.New("the command cannot stand in a URL")
	}
	request.Header = header
	started := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return target.explainFailure(err, o.timeout)
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(response.Body, maxReplyBytes))
	if err != nil {
		return target.explainFailure(err, o.timeout)
	}
	answer := answerOf(response.StatusCode, reply)
	elapsed := time.Since(started).Round(100 * time.Microsecond)
	if _, err := fmt.Fprintf(out, "HTTP %s in %s: %s\n", statusLine(response.StatusCode), elapsed, target.printable(answer.words())); err != nil {
		return err
	}
	return answer.problem(&target)
}

// callback returns the body to send, and the command as the URL is to spell it.
func (o *sendOptions) callback(spelled bool, in io.Reader) (openim.Command, []byte, error) {
	if o.file != "" {
		body, err := readFile(o.file, in)
		if err != nil {
			return "", nil, fmt.Errorf("read --file: %w", err)
		}
		if named := commandIn(body); named != "" && !spelled {
			return named, body, nil
		}
		return openim.Command(o.command), body, nil
	}
	command, known := openim.ParseCommand(o.command)
	if !known {
		return "", nil, fmt.Errorf("--command is none of OpenIM's group callbacks: %s", list(openim.Commands()))
	}
	dialect := openim.Dialect(o.dialect)
	if !slices.Contains(openim.Dialects(), dialect) {
		return "", nil, fmt.Errorf("--dialect must be one of %s", list(openim.Dialects()))
	}
	callback := openim.Callback{Command: command, OperationID: o.operationID, GroupID: o.groupID, Group: o.group}
	if callback.Group == (openim.GroupFields{}) {
		callback.Group = sample(command)
	}
	body, err := openim.Encode(dialect, callback)
	if err != nil {
		return "", nil, err
	}
	if spelled {
		return openim.Command(o.command), body, nil
	}
	return dialect.Spelling(command), body, nil
}

// sample returns what a callback tells where no flag says anything.
func sample(command openim.Command) openim.GroupFields {
	const owner = "U001"
	fields := openim.Documented().Group
	switch command {
	case openim.AfterCreateGroup:
		fields.OwnerUserID = new(owner)
	case openim.AfterTransferGroupOwner:
		return openim.GroupFields{OwnerUserID: new(owner)}
	case openim.AfterDismissGroup:
		return openim.GroupFields{GroupStatus: new(openim.GroupStatusDismissed)}
	}
	return fields
}

func readFile(path string, stdin io.Reader) ([]byte, error) {
	from := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	body, err := io.ReadAll(io.LimitReader(from, maxFileBytes+1))
	if err == nil && len(body) > maxFileBytes {
		err = errors.New("it is larger than " + strconv.Itoa(maxFileBytes) + " bytes")
	}
	return body, err
}

// commandIn returns the command that a captured body names, known or not, or "".
func commandIn(body []byte) openim.Command {
	var named struct {
		Command openim.Command `json:"callbackCommand"`
	}
	if err := json.Unmarshal(body, &named); err != nil {
		// Bodies that are no callbacks can be sent as well, to see what happens.
		return ""
	}
	return named.Command
}

// client returns one that behaves like OpenIM's: HTTP/1.1, one try. A proxy would get to see the token, so there is none.
func (o *sendOptions) client() (*http.Client, error) {
	var roots *x509.CertPool
	if o.caFile != "" {
		certificates, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, fmt.Errorf("read --ca-file: %w", err)
		}
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(certificates) {
			return nil, errors.New("--ca-file holds no certificate in PEM form")
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			Protocols:       protocols,
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// show prints the request.
func show(out io.Writer, url string, header http.Header, body []byte) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s\n", http.MethodPost, url)
	for _, name := range []string{"Content-Type", openim.OperationIDHeader} {
		fmt.Fprintf(&text, "%s: %s\n", name, header.Get(name))
	}
	text.WriteByte('\n')
	text.Write(body)
	if !bytes.HasSuffix(body, []byte("\n")) {
		text.WriteByte('\n')
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// flagError names the flag that is wrong and not its value: it may be the URL, in the wrong place.
func flagError(err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("the value of --%s is not a %s", e.GetFlag().Name, e.GetFlag().Value.Type())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok && e.GetSpecifiedShortnames() == "" {
		return err
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() == "" && !strings.Contains(e.GetSpecifiedName(), "/") {
		return err
	}
	return errors.New("a flag is malformed: flags start with two dashes, as in --url; see --help")
}

// textField is a flag for a field that is told only if the flag is given.
type textField struct{ at **string }

func (f textField) Set(value string) error {
	*f.at = &value
	return nil
}

func (f textField) String() string {
	if f.at == nil || *f.at == nil {
		return ""
	}
	return **f.at
}

func (f textField) Type() string { return "string" }

// numberField is a flag for a number that is told only if the flag is given.
type numberField[T int32 | int64] struct{ at **T }

func (f numberField[T]) Set(value string) error {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || int64(T(n)) != n {
		return errors.New("not an integer of its size")
	}
	*f.at = new(T(n))
	return nil
}

func (f numberField[T]) String() string {
	if f.at == nil || *f.at == nil {
		return ""
	}
	return strconv.FormatInt(int64(**f.at), 10)
}

func (f numberField[T]) Type() string { return "number" }

func list[T ~string](names []T) string {
	texts := make([]string, 0, len(names))
	for _, name := range names {
		texts = append(texts, string(name))
	}
	return strings.Join(texts, ", ")
}
