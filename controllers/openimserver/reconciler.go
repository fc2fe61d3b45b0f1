package openimserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/apierr"
	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/conditions"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
)

// FieldManager is the name under which this controller writes.
const FieldManager = "groupinfo-operator-servers"

// Reconciler reconciles OpenIMServers, one at a time: together they own the projected Secret.
type Reconciler struct {
	// Client reads OpenIMServers from the cache.
	Client client.Client
	// Live reads from the API server: tenants' Secrets are in no cache.
	Live client.Reader
	// VerifierSecret is the projected Secret, and Verifiers the cache that holds it.
	VerifierSecret client.ObjectKey
	Verifiers      client.Reader
	Recorder       events.EventRecorder
	Now            func() time.Time

	statusWrites *ownwrites.Writes
}

// scope is what one reconcile knows of its server.
type scope struct {
	server *openimv1.OpenIMServer
	// secretName is the Secret with the tokens.
	secretName string
	// tokens are the ones that are in force.
	tokens []string
	// reason and message tell why the server is not accepting callbacks as it should, or are empty.
	reason, message string
}

func (s *scope) fail(reason, format string, args ...any) {
	s.reason, s.message = reason, fmt.Sprintf(format, args...)
}

// +kubebuilder:rbac:groups=openim.io,resources=openimservers,verbs=get;list;watch
// +kubebuilder:rbac:groups=openim.io,resources=openimservers/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create
// +kubebuilder:rbac:groups="",namespace=groupinfo-operator-system,resources=secrets,resourceNames=groupinfo-operator-verifiers,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	server := &openimv1.OpenIMServer{}
	err := r.Client.Get(ctx, request.NamespacedName, server)
	if apierrors.IsNotFound(err) || (err == nil && !server.DeletionTimestamp.IsZero()) {
		r.statusWrites.Forget(request.NamespacedName)
		return ctrl.Result{}, r.project(ctx, request.NamespacedName, nil)
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if _, unseen := r.statusWrites.Unseen(request.NamespacedName, server.ResourceVersion); unseen {
		// The cache is behind; the event that brings it up to date brings us back.
		return ctrl.Result{}, nil
	}
	s := &scope{server: server}
	for _, phase := range []func(context.Context, *scope) error{r.activate, r.ensureSecret, r.readSecret} {
		if s.reason != "" {
			break
		}
		if err := phase(ctx, s); err != nil {
			return ctrl.Result{}, err
		}
	}
	err = r.project(ctx, request.NamespacedName, s.tokens)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		// The cache is behind; the next attempt will succeed.
		return ctrl.Result{}, err
	} else if err != nil && s.reason == "" {
		s.fail(openimv1.ReasonProjectionFailed, "the receivers could not be told of the tokens (%s); the operator tries again", apierr.Reason(err))
	}
	again, statusErr := r.applyStatus(ctx, s)
	return ctrl.Result{RequeueAfter: again}, errors.Join(err, statusErr)
}

// activate lets only the oldest OpenIMServer of a namespace pass.
func (r *Reconciler) activate(ctx context.Context, s *scope) error {
	var all openimv1.OpenIMServerList
	if err := r.Client.List(ctx, &all, client.InNamespace(s.server.Namespace)); err != nil {
		return err
	}
	if active := Active(all.Items); active != nil && active.Name != s.server.Name {
		s.fail(openimv1.ReasonNamespaceTaken, "OpenIMServer %s is older and active in this namespace; create this one in a namespace of its own", active.Name)
	}
	return nil
}

// Active returns the one of a namespace's OpenIMServers that is active: the oldest, and of two of the same second the
// first in alphabetical order. It returns nil where there is none.
func Active(servers []openimv1.OpenIMServer) *openimv1.OpenIMServer {
	var active *openimv1.OpenIMServer
	for i := range servers {
		candidate := &servers[i]
		if !candidate.DeletionTimestamp.IsZero() {
			continue
		}
		if active == nil || candidate.CreationTimestamp.Before(&active.CreationTimestamp) ||
			(candidate.CreationTimestamp.Equal(&active.CreationTimestamp) && candidate.Name < active.Name) {
			active = candidate
		}
	}
	return active
}

// ensureSecret creates the token Secret where the user named none.
func (r *Reconciler) ensureSecret(ctx context.Context, s *scope) error {
	name, chosen := secretName(s.server)
	s.secretName = name
	if chosen {
		return nil
	}
	existing := &metav1.PartialObjectMetadata{}
	existing.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: s.server.Namespace, Name: name}, existing)
	if err == nil {
		if !metav1.IsControlledBy(existing, s.server) {
			s.fail(openimv1.ReasonSecretConflict, "Secret %s was not created by the operator; name it in spec.callbacks.secretRef to use it, or delete it", name)
		}
		return nil
	} else if !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Secret %s: %w", name, err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.server.Namespace,
			Name:      name,
			Labels:    map[string]string{openimv1.LabelServer: s.server.Name},
		},
		Data: map[string][]byte{tokenKey: []byte(newToken())},
	}
	if err := controllerutil.SetControllerReference(s.server, secret, r.Client.Scheme(), controllerutil.WithBlockOwnerDeletion(false)); err != nil {
		return fmt.Errorf("own Secret %s: %w", name, err)
	}
	if err := r.Client.Create(ctx, secret, client.FieldOwner(FieldManager)); err != nil {
		return fmt.Errorf("create Secret %s: %w", name, err)
	}
	r.Recorder.Eventf(s.server, secret, corev1.EventTypeNormal, "TokenCreated", "CreateToken", "Created Secret %s with a random callback token", name)
	return nil
}

// readSecret takes over the valid tokens. An invalid one is told and takes none of the others out of force.
func (r *Reconciler) readSecret(ctx context.Context, s *scope) error {
	secret := &corev1.Secret{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: s.server.Namespace, Name: s.secretName}, secret)
	if apierrors.IsNotFound(err) {
		s.fail(openimv1.ReasonSecretNotFound, "Secret %s does not exist; create it with a key %s, or remove spec.callbacks.secretRef to have one created", s.secretName, tokenKey)
		return nil
	} else if err != nil {
		return fmt.Errorf("read Secret %s: %w", s.secretName, err)
	}
	tokens, faults := readTokens(secret.Data)
	s.tokens = tokens
	if len(faults) > 0 {
		s.fail(openimv1.ReasonSecretInvalid, "Secret %s: %s; tokens in force: %d", s.secretName, strings.Join(faults, ", "), len(tokens))
	}
	return nil
}

// project writes the verifier for the tokens where the receivers find it; without tokens there is none, and the server's
// callbacks are refused.
func (r *Reconciler) project(ctx context.Context, server client.ObjectKey, tokens []string) error {
	var all openimv1.OpenIMServerList
	if err := r.Client.List(ctx, &all); err != nil {
		return err
	}
	projected := &corev1.Secret{}
	err := r.Verifiers.Get(ctx, r.VerifierSecret, projected)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	data, err := projection(projected.Data, all.Items, server, tokens)
	if err != nil {
		return err
	}
	if missing {
		if len(data) == 0 {
			return nil
		}
		created := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: r.VerifierSecret.Namespace, Name: r.VerifierSecret.Name},
			Data:       data,
		}
		if err := r.Client.Create(ctx, created, client.FieldOwner(FieldManager)); err != nil {
			return fmt.Errorf("create Secret %s: %w", r.VerifierSecret, err)
		}
		return nil
	}
	if equality.Semantic.DeepEqual(data, projected.Data) {
		return nil
	}
	changed := projected.DeepCopy()
	changed.Data = data
	if err := r.Client.Patch(ctx, changed, client.MergeFrom(projected), client.FieldOwner(FieldManager)); err != nil {
		return fmt.Errorf("patch Secret %s: %w", r.VerifierSecret, err)
	}
	return nil
}

// projection returns the data of the projected Secret with the server's verifier set, or taken out if there are no
// tokens, and without those of servers that are gone.
func projection(current map[string][]byte, all []openimv1.OpenIMServer, server client.ObjectKey, tokens []string) (map[string][]byte, error) {
	data := map[string][]byte{}
	for i := range all {
		key := verifier.Key(client.ObjectKeyFromObject(&all[i]))
		if value, found := current[key]; found {
			data[key] = value
		}
	}
	delete(data, verifier.Key(server))
	if len(tokens) > 0 {
		encoded, err := verifier.New(tokens...).MarshalJSON()
		if err != nil {
			return nil, err
		}
		data[verifier.Key(server)] = encoded
	}
	return data, nil
}

// applyStatus writes the status if it says anything new, and returns after how long to look again, or 0.
func (r *Reconciler) applyStatus(ctx context.Context, s *scope) (again time.Duration, err error) {
	server := s.server
	status, again := s.status(r.Now())
	if equality.Semantic.DeepEqual(server.Status, status) {
		return again, nil
	}
	applied := openimac.OpenIMServer(server.Name, server.Namespace).WithStatus(statusConfiguration(status))
	if err := r.Client.Status().Apply(ctx, applied, client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
		return again, fmt.Errorf("apply status: %w", err)
	}
	r.statusWrites.Record(client.ObjectKeyFromObject(server), ownwrites.Write{ResourceVersion: *applied.ResourceVersion})
	r.tell(server, status)
	return again, nil
}

// status returns what is to be told of the server, and after how long that may change by itself, or 0.
func (s *scope) status(now time.Time) (status openimv1.OpenIMServerStatus, again time.Duration) {
	server := s.server
	ofReceivers, again := receiverConditions(server.Status.Receivers, now)
	status = openimv1.OpenIMServerStatus{
		ObservedGeneration: server.Generation,
		TokenSecretName:    s.secretName,
		Conditions:         conditions.New(server.Status.Conditions, server.Generation, now, append(s.conditions(), ofReceivers...)...),
		// Theirs to write.
		Receivers: server.Status.Receivers,
	}
	if len(s.tokens) > 0 {
		// The word TOKEN stands for the token: a status is for many eyes.
		status.CallbackPath = fmt.Sprintf("/callbacks/%s/%s/TOKEN", server.Namespace, server.Name)
	}
	return status, again
}

// statusConfiguration returns the part of the status that is this controller's.
func statusConfiguration(status openimv1.OpenIMServerStatus) *openimac.OpenIMServerStatusApplyConfiguration {
	configuration := openimac.OpenIMServerStatus().
		WithObservedGeneration(status.ObservedGeneration).
		WithConditions(conditions.Apply(status.Conditions)...)
	if status.TokenSecretName != "" {
		configuration.WithTokenSecretName(status.TokenSecretName)
	}
	if status.CallbackPath != "" {
		configuration.WithCallbackPath(status.CallbackPath)
	}
	return configuration
}

// conditions returns what holds now. What keeps a server from being ready is for the user to mend, hence Stalled.
func (s *scope) conditions() []metav1.Condition {
	if s.reason == "" {
		return []metav1.Condition{{
			Type: openimv1.ConditionReady, Status: metav1.ConditionTrue, Reason: openimv1.ReasonAccepting,
			Message: "callbacks with a valid token are accepted",
		}}
	}
	return []metav1.Condition{
		{Type: openimv1.ConditionReady, Status: metav1.ConditionFalse, Reason: s.reason, Message: s.message},
		{Type: openimv1.ConditionStalled, Status: metav1.ConditionTrue, Reason: s.reason, Message: s.message},
	}
}

// tell records an event for Ready when it changes, and for what is wrong with the receivers when it begins and ends.
func (r *Reconciler) tell(server *openimv1.OpenIMServer, status openimv1.OpenIMServerStatus) {
	event := func(kind string, c *metav1.Condition) {
		r.Recorder.Eventf(server, nil, kind, c.Reason, "Reconcile", "%s", c.Message)
	}
	before := meta.FindStatusCondition(server.Status.Conditions, openimv1.ConditionReady)
	now := meta.FindStatusCondition(status.Conditions, openimv1.ConditionReady)
	if before == nil || before.Status != now.Status || before.Reason != now.Reason {
		kind := corev1.EventTypeNormal
		if now.Status != metav1.ConditionTrue {
			kind = corev1.EventTypeWarning
		}
		event(kind, now)
	}
	for _, conditionType := range receiverConditionTypes {
		before := meta.FindStatusCondition(server.Status.Conditions, conditionType)
		now := meta.FindStatusCondition(status.Conditions, conditionType)
		switch {
		case before == nil && now != nil:
			event(corev1.EventTypeWarning, now)
		case before != nil && now == nil:
			r.Recorder.Eventf(server, nil, corev1.EventTypeNormal, conditionType+"Over", "Reconcile", "No receiver reports %s any more", conditionType)
		}
	}
}
