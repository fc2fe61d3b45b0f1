package applier

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
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

// reasonOf says in a word why a write failed that will be tried again.
func reasonOf(err error) string {
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		return openimv1.PendingTimeout
	case !errors.As(err, &status):
		return openimv1.PendingUnreachable
	case apierrors.IsUnauthorized(err):
		return openimv1.PendingUnauthorized
	case apierrors.IsForbidden(err):
		return openimv1.PendingForbidden
	case apierrors.IsTooManyRequests(err):
		return openimv1.PendingThrottled
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return openimv1.PendingConflict
	case apierrors.IsNotFound(err):
		return openimv1.PendingNotInstalled
	case status.Status().Code >= 500:
		return openimv1.PendingServerError
	}
	return openimv1.PendingOther
}

// Final reports whether no later attempt to write can succeed where this error came from one.
func Final(err error) bool { return judge(err) == impossible }

// RetryAfter is how long the API server asked to wait, or 0.
func RetryAfter(err error) time.Duration {
	seconds, _ := apierrors.SuggestsClientDelay(err)
	return time.Duration(seconds) * time.Second
}
