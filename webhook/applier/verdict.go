package applier

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

// verdict is what a write's result means for its entries.
type verdict int

const (
	// applied: the object holds the changes.
	applied verdict = iota
	// passing: the trouble may pass, with the API server, the network, or an administrator who mends the permissions.
	passing
	// impossible: no later attempt can succeed.
	impossible
)

// judge tells passing trouble from final refusals. What it does not know is passing: waiting loses nothing.
func judge(err error) verdict {
	var identity *groupwriter.IdentityError
	switch {
	case err == nil:
		return applied
	case errors.As(err, &identity),
		errors.Is(err, groupwriter.ErrAbsent),
		apierrors.IsInvalid(err),
		apierrors.IsBadRequest(err),
		errors.Is(err, journal.ErrUnreadable),
		apierrors.IsRequestEntityTooLargeError(err),
		namespaceGone(err):
		return impossible
	default:
		return passing
	}
}

// namespaceGone tells a missing namespace from a missing CRD, which somebody will install.
func namespaceGone(err error) bool {
	var status apierrors.APIStatus
	return apierrors.IsNotFound(err) && errors.As(err, &status) &&
		status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
}

// retryAfter is how long the API server asked to wait.
func retryAfter(err error) time.Duration {
	seconds, _ := apierrors.SuggestsClientDelay(err)
	return time.Duration(seconds) * time.Second
}
