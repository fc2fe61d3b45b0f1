package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// maxShownBytes bounds how much of a text from elsewhere is shown.
const maxShownBytes = 400

// answer is what came back for a callback.
type answer struct {
	status int
	reply  openim.Reply
	// unreadable: OpenIM's client would fail to parse the body.
	unreadable bool
	body       []byte
}

func answerOf(status int, body []byte) answer {
	reply, err := openim.ParseReply(body)
	return answer{status: status, reply: reply, unreadable: err != nil, body: body}
}

// words says what OpenIM makes of the answer. They may hold what the other side sent.
func (a answer) words() string {
	switch {
	case a.unreadable && len(a.body) == 0:
		return "no reply"
	case a.unreadable:
		return "not a reply that OpenIM understands: " + string(a.body)
	case a.reply.Failed():
		return fmt.Sprintf("refused: %s (errCode %d)", a.reply.ErrMsg, a.reply.ErrCode)
	default:
		return "accepted"
	}
}

// problem returns nil for a callback that arrived, and otherwise what to do.
func (a answer) problem(target *callbackURL) error {
	success := a.status >= 200 && a.status <= 299
	if success && !a.unreadable && !a.reply.Failed() {
		return nil
	}
	return fmt.Errorf("the callback was not accepted (HTTP %d): %s", a.status, a.advice(target, success))
}

func (a answer) advice(target *callbackURL, success bool) string {
	switch {
	case a.status == http.StatusUnauthorized && target.placeholder:
		return "put the token where the word " + tokenPlaceholder + " stands in the URL; it is in the Secret that the OpenIMServer's status.tokenSecretName names"
	case (a.status == http.StatusUnauthorized || a.status == http.StatusNotFound) && !target.shaped:
		return "the URL is not of the form " + urlShape + "; the OpenIMServer's status.callbackPath shows its path, to which OpenIM appends the command"
	case a.status == http.StatusUnauthorized:
		return "compare the URL's path with the OpenIMServer's status.callbackPath, its token with the Secret that status.tokenSecretName names, and see that the OpenIMServer is Ready"
	case a.status == http.StatusNotFound && !a.unreadable:
		return "this receiver does not take the command; disable it in webhooks.yml, or choose another --command"
	case a.status >= 300 && a.status <= 399:
		return "the URL redirects, and a callback must not: put the final URL into webhooks.yml"
	case a.status == http.StatusRequestEntityTooLarge:
		return "the body is too large for the receiver, or for a proxy in front of it"
	case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable && !a.unreadable:
		return "wait a moment and try again; if it stays so, see the receiver's log. OpenIM itself does not try again"
	case a.status >= 500 && a.unreadable:
		return "a proxy in front of the receiver answers in its place; see that a receiver is running and ready"
	case a.status >= 500:
		return "see the receiver's log, and whether it reaches the Kubernetes API server"
	case a.status == http.StatusBadRequest && a.unreadable:
		return "something other than the receiver answers there; if it speaks TLS, start the URL with https://"
	case !success && !a.unreadable:
		return "the receiver says above what is wrong with the request"
	case a.unreadable:
		return "something other than the receiver answers there; check host, port and path of the URL, and what forwards to the receiver"
	default:
		return "OpenIM's client takes this reply as failure, whatever the HTTP status"
	}
}

// explainFailure turns a failure to reach the receiver into an error that says what to do. The URL in Go's error holds
// the token, so only what it wraps is told.
func (c *callbackURL) explainFailure(err error, timeout time.Duration) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	var advice string
	dns, isDNS := errors.AsType[*net.DNSError](err)
	_, isUnknownAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	_, isHostname := errors.AsType[x509.HostnameError](err)
	_, isCertificate := errors.AsType[x509.CertificateInvalidError](err)
	_, isNotTLS := errors.AsType[tls.RecordHeaderError](err)
	netError, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: the callback may or may not have arrived")
	case errors.Is(err, syscall.ECONNREFUSED):
		advice = "nothing listens there; see that the receiver is running, and from outside of the cluster reach it with kubectl port-forward"
	case isDNS && dns.IsNotFound:
		advice = "the host is not known here; names of Services hold inside the cluster only, and kubectl port-forward leads in from outside"
	case errors.Is(err, context.DeadlineExceeded), isNet && netError.Timeout():
		return fmt.Errorf("no reply from %s within %s (OpenIM waits 5s by default); check host and port, NetworkPolicies, and the receiver's log",
			c.masked, timeout)
	case isUnknownAuthority:
		advice = "the certificate comes from an authority that is not trusted here; OpenIM trusts its system's only. Give it with --ca-file for this try"
	case isHostname:
		advice = "the certificate is for another host; let the URL name a host that the certificate names"
	case isCertificate:
		advice = "renew the receiver's certificate, and check the clocks"
	case isNotTLS, errors.Is(err, http.ErrSchemeMismatch):
		advice = "that port does not speak TLS; start the URL with http://"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		advice = "the other side closed the connection; if it speaks TLS, start the URL with https://, and otherwise see the receiver's log"
	default:
		advice = "check the URL, and that the receiver is running"
	}
	return fmt.Errorf("send the callback to %s: %s; %s", c.masked, c.printable(err.Error()), advice)
}

// printable makes a text from elsewhere fit for a terminal: on one line, not long, and without the token.
func (c *callbackURL) printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	// Redacted before it is cut, lest the cut leaves a part of the token.
	text = c.redact(strings.Join(strings.Fields(text), " "))
	if len(text) > maxShownBytes {
		text = strings.ToValidUTF8(text[:maxShownBytes], "") + " …"
	}
	return text
}

func statusLine(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}
