package groupinfo

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
	"github.com/groupinfo-operator/groupinfo-operator/internal/testenv"
)

var env *testenv.Environment

func TestTargets(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "groupinfo")
}

var _ = BeforeSuite(func() {
	var err error
	env, err = testenv.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(env.Stop()).To(Succeed()) })
})

// connection is a controller's connection to the API server. It can show an outdated cache, and let something happen
// between a look and the write that follows it.
type connection struct {
	client.WithWatch

	// shows is what the cache shows instead of what there is; nil stands for nothing.
	shows map[client.ObjectKey]client.Object
	// meanwhile happens once, before the next write.
	meanwhile func()
	// writes are the verbs of all attempts to write.
	writes []string
}

func connect() *connection {
	GinkgoHelper()
	direct, err := client.NewWithWatch(env.Config, client.Options{Scheme: env.Client.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	c := &connection{shows: map[client.ObjectKey]client.Object{}}
	c.WithWatch = interceptor.NewClient(direct, interceptor.Funcs{
		Get: c.get,
		List: func(ctx context.Context, direct client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			return direct.List(ctx, list, withoutIndex(opts)...)
		},
		Create: func(ctx context.Context, direct client.WithWatch, object client.Object, opts ...client.CreateOption) error {
			c.attempt("create")
			return direct.Create(ctx, object, opts...)
		},
		Patch: func(ctx context.Context, direct client.WithWatch, object client.Object, patch client.Patch, opts ...client.PatchOption) error {
			c.attempt("patch")
			return direct.Patch(ctx, object, patch, opts...)
		},
		Apply: func(ctx context.Context, direct client.WithWatch, object runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			c.attempt("apply")
			return direct.Apply(ctx, object, opts...)
		},
		Delete: func(ctx context.Context, direct client.WithWatch, object client.Object, opts ...client.DeleteOption) error {
			c.attempt("delete")
			return direct.Delete(ctx, object, opts...)
		},
		SubResourceApply: func(ctx context.Context, direct client.Client, subresource string, object runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
			c.attempt("apply " + subresource)
			return direct.SubResource(subresource).Apply(ctx, object, opts...)
		},
	})
	return c
}

func (c *connection) attempt(verb string) {
	c.writes = append(c.writes, verb)
	if c.meanwhile != nil {
		happens := c.meanwhile
		c.meanwhile = nil
		happens()
	}
}

func (c *connection) get(ctx context.Context, direct client.WithWatch, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
	shown, outdated := c.shows[key]
	if !outdated {
		return direct.Get(ctx, key, into, opts...)
	}
	if shown == nil {
		return apierrors.NewNotFound(configMapResource, key.Name)
	}
	switch into := into.(type) {
	case *metav1.PartialObjectMetadata:
		shown.(*metav1.PartialObjectMetadata).DeepCopyInto(into)
	case *openimv1.GroupInfo:
		shown.(*openimv1.GroupInfo).DeepCopyInto(into)
	}
	return nil
}

// withoutIndex asks the API server for what a cache has an index of.
func withoutIndex(opts []client.ListOption) []client.ListOption {
	for i, opt := range opts {
		fields, ok := opt.(client.MatchingFields)
		switch {
		case !ok:
		case fields[groupIndex] != "":
			opts[i] = client.MatchingLabels{openimv1.LabelGroupInfo: fields[groupIndex]}
		default:
			opts[i] = client.MatchingLabels{}
		}
	}
	return opts
}

// written returns the attempts to write since the last call.
func (c *connection) written() []string {
	verbs := c.writes
	c.writes = nil
	return verbs
}

// newConfigMaps returns what a controller starts with, without a memory of its own writes.
func newConfigMaps(c *connection) *configMaps {
	return &configMaps{client: c, live: env.Client, writes: ownwrites.New(time.Now)}
}

// newRules returns an empty cache of rules.
func newRules() *rules.Cache {
	GinkgoHelper()
	compiled, err := rules.NewCache(CheckTarget)
	Expect(err).NotTo(HaveOccurred())
	return compiled
}

// newJobs returns what a controller starts with, without a memory of what it creates and who waits.
func newJobs(c *connection) *jobs {
	return &jobs{client: c, live: env.Client, now: time.Now, slots: newSlots(c, time.Now, func(client.ObjectKey) {})}
}
