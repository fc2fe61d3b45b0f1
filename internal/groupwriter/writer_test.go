package groupwriter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

func newNamespace(ctx context.Context) string {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "writer-"}}
	Expect(env.Client.Create(ctx, namespace)).To(Succeed())
	return namespace.Name
}

func newWriter(c client.Client) *groupwriter.Writer {
	return &groupwriter.Writer{Client: c, Clock: stamp.NewClock(1, time.Now)}
}

func told(sequence uint64, groupID string, set func(*openimv1.GroupInfoSpec)) merge.State {
	spec := openimv1.GroupInfoSpec{ServerName: "demo", GroupID: groupID}
	set(&spec)
	merge.Bound(&spec)
	at := stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLC(sequence), Replica: 1, Sequence: sequence}
	return merge.Change{Stamp: at, Command: "callbackAfterSetGroupInfoExCommand", Received: time.Unix(int64(sequence), 0), Spec: spec}.State()
}

func named(name string) func(*openimv1.GroupInfoSpec) {
	return func(spec *openimv1.GroupInfoSpec) { spec.GroupName = &name }
}

func get(ctx context.Context, namespace, groupID string) *openimv1.GroupInfo {
	object := &openimv1.GroupInfo{}
	key := client.ObjectKey{Namespace: namespace, Name: naming.Namer{}.GroupInfo(groupID)}
	ExpectWithOffset(1, env.Client.Get(ctx, key, object)).To(Succeed())
	return object
}

// meddler changes an object just before somebody else patches it, twice for each object, so that the patch's guard fails.
type meddler struct {
	mu        sync.Mutex
	left      map[string]int
	conflicts int
}

func (m *meddler) meddles(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left[name] >= 2 {
		return false
	}
	m.left[name]++
	m.conflicts++
	return true
}

func (m *meddler) client() client.Client {
	direct, err := client.NewWithWatch(env.Config, client.Options{Scheme: env.Client.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return interceptor.NewClient(direct, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if m.meddles(object.GetName()) {
				other := &openimv1.GroupInfo{ObjectMeta: metav1.ObjectMeta{Namespace: object.GetNamespace(), Name: object.GetName()}}
				body := []byte(`{"metadata":{"annotations":{"meddled":"` + time.Now().Format(time.RFC3339Nano) + `"}}}`)
				if err := c.Patch(ctx, other, client.RawPatch(types.MergePatchType, body)); err != nil {
					return err
				}
			}
			return c.Patch(ctx, object, patch, opts...)
		},
	})
}

// counter notes the requests for objects.
type counter struct{ requests []string }

// reset returns what was requested since the last call.
func (c *counter) reset() string {
	defer func() { c.requests = nil }()
	return strings.Join(c.requests, " ")
}

func (c *counter) client() client.Client {
	direct, err := client.NewWithWatch(env.Config, client.Options{Scheme: env.Client.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return interceptor.NewClient(direct, interceptor.Funcs{
		Get: func(ctx context.Context, w client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
			requested := &client.GetOptions{}
			requested.ApplyOptions(opts)
			verb := "get"
			if requested.AsGetOptions().ResourceVersion == "0" {
				verb = "get-recent"
			}
			c.requests = append(c.requests, verb)
			return w.Get(ctx, key, object, opts...)
		},
		Create: func(ctx context.Context, w client.WithWatch, object client.Object, opts ...client.CreateOption) error {
			c.requests = append(c.requests, "create")
			return w.Create(ctx, object, opts...)
		},
		Patch: func(ctx context.Context, w client.WithWatch, object client.Object, patch client.Patch, opts ...client.PatchOption) error {
			c.requests = append(c.requests, "patch")
			return w.Patch(ctx, object, patch, opts...)
		},
	})
}

// jsonBytes is the length of the text in JSON, without the quotes.
func jsonBytes(text string) int {
	encoded, err := json.Marshal(text)
	Expect(err).NotTo(HaveOccurred())
	return len(encoded) - 2
}

var _ = Describe("Writer", func() {
	It("creates, patches, and writes nothing when there is nothing new", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)

		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		created := get(ctx, namespace, "G002")
		Expect(created.Labels).To(HaveKeyWithValue(openimv1.LabelServer, "demo"))
		Expect(created.Labels).To(HaveKeyWithValue(openimv1.LabelGroupID, "G002"))

		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Unchanged))
		Expect(get(ctx, namespace, "G002").ResourceVersion).To(Equal(created.ResourceVersion))

		Expect(w.Write(ctx, namespace, told(2, "G002", func(s *openimv1.GroupInfoSpec) { s.NeedVerification = new(int32(0)) }))).To(Equal(groupwriter.Patched))
		patched := get(ctx, namespace, "G002")
		Expect(patched.Spec.GroupName).To(HaveValue(Equal("A")))
		Expect(patched.Spec.NeedVerification).To(HaveValue(BeZero()))
		Expect(patched.History).To(HaveLen(2))
	})

	It("clears a field, and tells it from one that was never told", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		Expect(w.Write(ctx, namespace, told(2, "G002", named("")))).To(Equal(groupwriter.Patched))
		Expect(get(ctx, namespace, "G002").Spec.GroupName).To(HaveValue(BeEmpty()))
		Expect(get(ctx, namespace, "G002").Spec.Ex).To(BeNil())
	})

	It("records a value that is too large, and forgets the record with the next value", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		Expect(w.Write(ctx, namespace, told(2, "G002", named(strings.Repeat("n", merge.MaxTextBytes+1))))).To(Equal(groupwriter.Patched))
		object := get(ctx, namespace, "G002")
		Expect(object.Spec.GroupName).To(BeNil())
		Expect(object.Spec.Omitted).To(ConsistOf(HaveField("Field", "groupName")))

		Expect(w.Write(ctx, namespace, told(3, "G002", named("B")))).To(Equal(groupwriter.Patched))
		object = get(ctx, namespace, "G002")
		Expect(object.Spec.GroupName).To(HaveValue(Equal("B")))
		Expect(object.Spec.Omitted).To(BeEmpty())
	})

	It("stores the largest values that the normaliser admits: a 422 would be a bug", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		for i, unit := range []string{"x", "<", "\x00", "群", "😀", "\u2028"} {
			filling := strings.Repeat(unit, merge.MaxTextBytes/jsonBytes(unit))
			user := strings.Repeat(unit, 1024/jsonBytes(unit))
			groupID := strings.Repeat(unit, 1024/len(unit))
			Expect(w.Write(ctx, namespace, told(uint64(i+1), groupID, func(s *openimv1.GroupInfoSpec) {
				s.GroupName, s.Notification, s.Introduction, s.FaceURL, s.Ex = &filling, &filling, &filling, &filling, &filling
				s.OwnerUserID, s.CreatorUserID = &user, &user
			}))).To(Equal(groupwriter.Created), "unit %q", unit)
			Expect(get(ctx, namespace, groupID).Spec.Omitted).To(BeEmpty(), "unit %q", unit)
			Expect(get(ctx, namespace, groupID).Spec.Notification).To(HaveValue(Equal(filling)), "unit %q", unit)
		}
	})

	It("keeps users' labels, and what a newer version wrote", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		object := get(ctx, namespace, "G002")
		newer := stamp.Stamp{Rank: stamp.RankTold, HLC: 7}.String() + "=aFieldOfANewerVersion"
		object.Labels["team"] = "blue"
		object.Annotations[openimv1.AnnotationStamps] = newer + ";" + object.Annotations[openimv1.AnnotationStamps]
		Expect(env.Client.Update(ctx, object)).To(Succeed())

		Expect(w.Write(ctx, namespace, told(2, "G002", named("B")))).To(Equal(groupwriter.Patched))
		object = get(ctx, namespace, "G002")
		Expect(object.Labels).To(HaveKeyWithValue("team", "blue"))
		Expect(object.Annotations[openimv1.AnnotationStamps]).To(ContainSubstring(newer))
		Expect(object.Spec.GroupName).To(HaveValue(Equal("B")))
	})

	It("keeps the fields that a newer version of the type has", func(ctx SpecContext) {
		By("installing the newer version")
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		crd.SetName("groupinfos.openim.io")
		newer := client.RawPatch(types.JSONPatchType, []byte(`[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/newer","value":{"type":"string","maxLength":16}}]`))
		Expect(env.Client.Patch(ctx, crd, newer)).To(Succeed())

		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(openimv1.GroupVersion.WithKind("GroupInfo"))
		object.SetNamespace(namespace)
		object.SetName(naming.Namer{}.GroupInfo("G002"))
		newerField := func() (string, error) {
			value, _, err := unstructured.NestedString(object.Object, "spec", "newer")
			return value, err
		}
		Eventually(ctx, func() (string, error) {
			// The API server drops the field until it has learned of it.
			if err := env.Client.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"newer":"kept"}}`))); err != nil {
				return "", err
			}
			return newerField()
		}).WithTimeout(30 * time.Second).Should(Equal("kept"))

		Expect(w.Write(ctx, namespace, told(2, "G002", named("B")))).To(Equal(groupwriter.Patched))
		Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		Expect(newerField()).To(Equal("kept"))
	})

	It("takes the next change of every field when the stamps were spoiled", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(9, "G002", named("A")))).To(Equal(groupwriter.Created))
		object := get(ctx, namespace, "G002")
		object.Annotations[openimv1.AnnotationStamps] = "not stamps"
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		Expect(w.Write(ctx, namespace, told(1, "G002", named("B")))).To(Equal(groupwriter.Patched))
		Expect(get(ctx, namespace, "G002").Spec.GroupName).To(HaveValue(Equal("B")))
	})

	It("lets no stamp that was written by hand keep changes from this group, nor from any other", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		object := get(ctx, namespace, "G002")
		object.Annotations[openimv1.AnnotationStamps] = "1.ffffffffffffffff.ffffffffffffffff.ffffffffffffffff=groupName"
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		Expect(w.Write(ctx, namespace, told(2, "G002", named("B")))).To(Equal(groupwriter.Patched))
		Expect(get(ctx, namespace, "G002").Spec.GroupName).To(HaveValue(Equal("B")))
		Expect(w.Clock.Next(stamp.RankTold).HLC.Time()).To(BeTemporally("~", time.Now(), time.Minute))
	})

	It("takes no recent object's word for what nothing can mend", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		requests := &counter{}
		w := newWriter(requests.client())
		_, err := w.Write(ctx, namespace, told(1, "G002", named("A")), groupwriter.OnlyIfPresent)
		Expect(err).To(MatchError(groupwriter.ErrAbsent))
		Expect(requests.reset()).To(Equal("get-recent get"))

		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		Expect(requests.reset()).To(Equal("get-recent create"))
		Eventually(ctx, func() (groupwriter.Result, error) {
			return w.Write(ctx, namespace, told(1, "G002", named("A")))
		}).Should(Equal(groupwriter.Unchanged))
		requests.reset()
		_, err = w.Write(ctx, namespace, told(2, "G002", func(s *openimv1.GroupInfoSpec) { s.ServerName = "other" }))
		Expect(err).To(MatchError(ContainSubstring("spec.serverName differs")))
		Expect(requests.reset()).To(Equal("get-recent get"))
	})

	It("passes no verdict when the time is up before it could read again", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		direct, err := client.NewWithWatch(env.Config, client.Options{Scheme: env.Client.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		w := newWriter(interceptor.NewClient(direct, interceptor.Funcs{
			Get: func(ctx context.Context, w client.WithWatch, key client.ObjectKey, object client.Object, opts ...client.GetOption) error {
				requested := &client.GetOptions{}
				requested.ApplyOptions(opts)
				if requested.AsGetOptions().ResourceVersion == "0" {
					return w.Get(ctx, key, object, opts...)
				}
				<-ctx.Done()
				return ctx.Err()
			},
		}))
		hurried, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err = w.Write(hurried, namespace, told(1, "G002", named("A")), groupwriter.OnlyIfPresent)
		Expect(err).To(HaveOccurred())
		Expect(err).NotTo(MatchError(groupwriter.ErrAbsent))
	})

	It("creates at once what a creation tells of, and merges where an update came first", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		requests := &counter{}
		w := newWriter(requests.client())
		creation := func(groupID string) merge.State {
			at := stamp.Stamp{Rank: stamp.RankCreate, HLC: 99, Replica: 1, Sequence: 99}
			spec := openimv1.GroupInfoSpec{ServerName: "demo", GroupID: groupID, GroupName: new("created"), OwnerUserID: new("o")}
			return merge.Change{Stamp: at, Command: "callbackAfterCreateGroupCommand", Received: time.Unix(99, 0), Spec: spec}.State()
		}
		Expect(w.Write(ctx, namespace, creation("new"))).To(Equal(groupwriter.Created))
		Expect(requests.reset()).To(Equal("create"))

		Expect(newWriter(env.Client).Write(ctx, namespace, told(1, "known", named("told")))).To(Equal(groupwriter.Created))
		Expect(w.Write(ctx, namespace, creation("known"))).To(Equal(groupwriter.Patched))
		Expect(requests.reset()).To(Equal("create get patch"))
		object := get(ctx, namespace, "known")
		Expect(object.Spec.GroupName).To(HaveValue(Equal("told")))
		Expect(object.Spec.OwnerUserID).To(HaveValue(Equal("o")))
	})

	It("returns a group that a user deleted with its next change", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		Expect(env.Client.Delete(ctx, get(ctx, namespace, "G002"))).To(Succeed())
		Expect(w.Write(ctx, namespace, told(2, "G002", func(s *openimv1.GroupInfoSpec) { s.Ex = new("e") }))).To(Equal(groupwriter.Created))
		Expect(get(ctx, namespace, "G002").Spec.GroupName).To(BeNil())
	})

	It("never overwrites another group's object, even when the names collide", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		// Four bits of digest: among 40 groups some must collide.
		w.Namer.Digest = func(groupID string) string {
			full := naming.Namer{}.GroupInfo("!" + groupID)
			return strings.Repeat(full[len(full)-1:], 25) + string("aq"[full[len(full)-2]&1])
		}
		owners := map[string]string{}
		collisions := 0
		for i := range 40 {
			groupID := strings.Repeat("!", i+1)
			name := w.Namer.GroupInfo(groupID)
			_, err := w.Write(ctx, namespace, told(uint64(i+1), groupID, named(groupID)))
			if _, taken := owners[name]; taken {
				var identity *groupwriter.IdentityError
				Expect(errors.As(err, &identity)).To(BeTrue(), "%v", err)
				Expect(identity.Field).To(Equal("groupID"))
				collisions++
				continue
			}
			Expect(err).NotTo(HaveOccurred())
			owners[name] = groupID
		}
		Expect(collisions).To(BeNumerically(">", 0))
		for name, groupID := range owners {
			object := &openimv1.GroupInfo{}
			Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)).To(Succeed())
			Expect(object.Spec.GroupID).To(Equal(groupID))
			Expect(object.Spec.GroupName).To(HaveValue(Equal(groupID)))
		}
	})

	It("refuses a group of another OpenIMServer", func(ctx SpecContext) {
		namespace, w := newNamespace(ctx), newWriter(env.Client)
		Expect(w.Write(ctx, namespace, told(1, "G002", named("A")))).To(Equal(groupwriter.Created))
		_, err := w.Write(ctx, namespace, told(2, "G002", func(s *openimv1.GroupInfoSpec) { s.ServerName = "other" }))
		Expect(err).To(MatchError(ContainSubstring("spec.serverName differs")))
	})

	It("says what is missing, at once, where the namespace does not exist", func(ctx SpecContext) {
		_, err := newWriter(env.Client).Write(ctx, "no-such-namespace", told(1, "G002", named("A")))
		Expect(err).To(MatchError(ContainSubstring(`namespaces "no-such-namespace" not found`)))
	})

	It("gives the same object for any order, copies and replicas, with conflicts on the way", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		groups := 0
		meddler := &meddler{left: map[string]int{}}
		contested := meddler.client()
		rapid.Check(GinkgoT(), func(t *rapid.T) {
			groups++
			groupID := fmt.Sprintf("g%d", groups)
			var want merge.State
			want.Spec.ServerName, want.Spec.GroupID = "demo", groupID
			var changes []merge.State
			for i := range rapid.IntRange(1, 6).Draw(t, "changes") {
				change := told(uint64(i+1), groupID, func(s *openimv1.GroupInfoSpec) {
					texts := rapid.Ptr(rapid.SampledFrom([]string{"", "a", "b"}), true)
					s.GroupName, s.Ex = texts.Draw(t, "groupName"), texts.Draw(t, "ex")
					s.NeedVerification = rapid.Ptr(rapid.Int32Range(0, 2), true).Draw(t, "needVerification")
				})
				changes = append(changes, change)
				want.Join(change)
			}
			deliveries := append(rapid.SliceOfN(rapid.SampledFrom(changes), 0, 3).Draw(t, "copies"), changes...)
			deliveries = rapid.Permutation(deliveries).Draw(t, "order")
			var replicas sync.WaitGroup
			failures := make([]error, 3)
			for r := range 3 {
				var mine []merge.State
				for i, d := range deliveries {
					if i%3 == r {
						mine = append(mine, d)
					}
				}
				replicas.Go(func() {
					w := newWriter(contested)
					for _, d := range mine {
						if _, err := w.Write(ctx, namespace, d); err != nil {
							failures[r] = err
						}
					}
				})
			}
			replicas.Wait()
			if err := errors.Join(failures...); err != nil {
				t.Fatal(err)
			}
			object := &openimv1.GroupInfo{}
			if err := env.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: groupID}, object); err != nil {
				t.Fatal(err)
			}
			stamps, err := merge.ParseStamps(object.Annotations[openimv1.AnnotationStamps])
			if err != nil {
				t.Fatal(err)
			}
			got := merge.State{Spec: object.Spec, Stamps: stamps, History: object.History}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b metav1.Time) bool { return a.Equal(&b) })); diff != "" {
				t.Fatal(diff)
			}
		})
		Expect(groups).To(BeNumerically(">=", 100))
		Expect(meddler.conflicts).To(BeNumerically(">=", 50), "too few conflicts to prove anything")
	})
})
