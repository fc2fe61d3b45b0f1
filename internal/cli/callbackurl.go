package cli

import (
	"cmp"
	"errors"
	"html"
	"net/url"
	"slices"
	"strings"

	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// tokenPlaceholder is shown where the token stands. The OpenIMServer's status.callbackPath shows the same word.
const tokenPlaceholder = "TOKEN"

// shortestToken is the length below which the operator refuses a token, so a shorter segment of a path is none.
const shortestToken = 22

// callbackURL is what stands as url in OpenIM's webhooks.yml, in a form to send to and in one to show.
type callbackURL struct {
	base string
	// masked is base without the token.
	masked string
	// secrets are the texts that must not be shown, in all their spellings.
	secrets []string
	// placeholder: the word TOKEN stands where the token belongs.
	placeholder bool
	// shaped: the path is one of the receiver's.
	shaped bool
}

const urlShape = "http://<host>/callbacks/<namespace>/<openimserver>/<token>"

// parseCallbackURL checks a URL as far as OpenIM needs it. No error repeats any of it.
func parseCallbackURL(base string) (callbackURL, error) {
	base = strings.TrimSpace(base)
	if base == "" {
		return callbackURL{}, errors.New("no callback URL: give the url of webhooks.yml, " + urlShape + ", with --url or $" + urlVariable)
	}
	u, err := url.Parse(base)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Hostname() == "":
		return callbackURL{}, errors.New("the callback URL is malformed: it must look like " + urlShape)
	case strings.ContainsAny(base, "?#"):
		return callbackURL{}, errors.New("the callback URL must end with its path: OpenIM appends /<command> to it")
	}
	c := callbackURL{base: base}
	shown := c.maskPath(u.EscapedPath())
	if password, ok := u.User.Password(); ok {
		c.keepSecret(password)
	}
	c.keepSecret(u.User.Username())
	c.masked = u.Scheme + "://" + u.Host + shown
	// The longest first, lest a part is replaced and the rest stays.
	slices.SortFunc(c.secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return c, nil
}

// maskPath returns the path to show. It masks what the receiver takes for the token, and whatever else may be one: the
// URL may be wrong, which is what people use this command to find out.
func (c *callbackURL) maskPath(path string) string {
	pieces := strings.Split(path, "/")
	named := slices.DeleteFunc(slices.Clone(pieces), func(s string) bool { return s == "" })
	root := slices.IndexFunc(named, func(s string) bool { return unescape(s) == "callbacks" })
	behind := 0
	for _, s := range named[root+1:] {
		if !isCommand(s) {
			behind++
		}
	}
	c.shaped = root == 0 && len(named) == 1+behind && (behind == 2 || behind == 3)

	at := -1
	for i, piece := range pieces {
		if piece == "" {
			continue
		}
		at++
		segment := unescape(piece)
		shown := len(segment) < shortestToken
		if root >= 0 && at >= root {
			switch place := at - root; {
			case place == 0, isCommand(piece):
				shown = true
			case place <= 2:
				// With less behind them, the token may stand in the place of a name.
				shown = shown || behind >= 3
			default:
				shown = false
			}
		}
		if shown {
			continue
		}
		c.placeholder = c.placeholder || segment == tokenPlaceholder
		c.keepSecret(piece)
		c.keepSecret(segment)
		pieces[i] = tokenPlaceholder
	}
	return strings.Join(pieces, "/")
}

func isCommand(piece string) bool {
	_, known := openim.ParseCommand(unescape(piece))
	return known
}

func unescape(piece string) string {
	segment, err := url.PathUnescape(piece)
	if err != nil {
		// url.Parse has checked the escapes.
		return piece
	}
	return segment
}

func (c *callbackURL) keepSecret(secret string) {
	if secret == "" || secret == tokenPlaceholder {
		return
	}
	for _, spelling := range []string{
		secret, url.PathEscape(secret), url.QueryEscape(secret), html.EscapeString(secret),
	} {
		if !slices.Contains(c.secrets, spelling) {
			c.secrets = append(c.secrets, spelling)
		}
	}
}

// redact takes the secrets out of a text that came from elsewhere.
func (c *callbackURL) redact(text string) string {
	for _, secret := range c.secrets {
		text = strings.ReplaceAll(text, secret, tokenPlaceholder)
	}
	return text
}
