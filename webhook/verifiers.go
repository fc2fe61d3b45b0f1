package webhook

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
)

// VerifierWatch keeps a Handler's verifiers equal to the projected Secret. It runs on every replica.
//
// The Secret is the only one that a receiver may read: it is exposed to whoever can reach it, so it must not be able to
// read the tenants' Secrets.
type VerifierWatch struct {
	// Cache holds no Secret but the projected one.
	Cache   cache.Cache
	Secret  client.ObjectKey
	Handler *Handler
	Log     logr.Logger
	// Save keeps the Secret's data for a start without the API server; nil where there is nowhere to keep it.
	Save func(data map[string][]byte) error

	// loading keeps an older reading of the Secret from replacing a newer one.
	loading sync.Mutex
}

// +kubebuilder:rbac:groups="",namespace=groupinfo-operator-system,resources=secrets,resourceNames=groupinfo-operator-verifiers,verbs=get;list;watch

// Start watches until the context ends. It implements manager.Runnable.
func (w *VerifierWatch) Start(ctx context.Context) error {
	informer, err := w.Cache.GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watch Secret %s: %w", w.Secret, err)
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { w.load(ctx) },
		UpdateFunc: func(any, any) { w.load(ctx) },
		DeleteFunc: func(any) { w.load(ctx) },
	})
	if err != nil {
		return fmt.Errorf("watch Secret %s: %w", w.Secret, err)
	}
	// The cache starts when this does, and is not to be read before. Where the Secret does not exist no event follows, and
	// there is nobody to accept.
	if w.Cache.WaitForCacheSync(ctx) {
		w.load(ctx)
	}
	<-ctx.Done()
	if err := informer.RemoveEventHandler(registration); err != nil {
		return fmt.Errorf("stop watching Secret %s: %w", w.Secret, err)
	}
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica checks tokens.
func (w *VerifierWatch) NeedLeaderElection() bool { return false }

func (w *VerifierWatch) load(ctx context.Context) {
	w.loading.Lock()
	defer w.loading.Unlock()
	secret := &corev1.Secret{}
	if err := w.Cache.Get(ctx, w.Secret, secret); client.IgnoreNotFound(err) != nil {
		w.Log.Error(err, "Verifiers not read: the previous ones stay in force")
		return
	} else if apierrors.IsNotFound(err) {
		w.Log.Info("No verifiers: callbacks are refused until an OpenIMServer is ready")
	}
	set, err := verifier.FromSecret(secret.Data)
	if err != nil {
		w.Log.Error(err, "Some verifiers are left out")
	}
	w.Handler.SetVerifiers(set)
	if w.Save != nil {
		if err := w.Save(secret.Data); err != nil {
			w.Log.Error(err, "Verifiers not kept: a start without the API server will not know them")
		}
	}
	w.Log.V(1).Info("Verifiers loaded", "openIMServers", len(set))
}
