package openimserver

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
)

func server(namespace, name string, created int64) openimv1.OpenIMServer {
	return openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(time.Unix(created, 0)),
	}}
}

func TestActive(t *testing.T) {
	deleting := server("chat", "oldest", 1)
	deleting.DeletionTimestamp = &metav1.Time{Time: time.Unix(9, 0)}
	for name, tc := range map[string]struct {
		servers []openimv1.OpenIMServer
		want    string
	}{
		"none":                              {nil, ""},
		"the oldest":                        {[]openimv1.OpenIMServer{server("chat", "a", 3), server("chat", "b", 2)}, "b"},
		"of one second the first by name":   {[]openimv1.OpenIMServer{server("chat", "b", 2), server("chat", "a", 2)}, "a"},
		"one that is being deleted is gone": {[]openimv1.OpenIMServer{deleting, server("chat", "b", 2)}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if active := Active(tc.servers); active != nil {
				got = active.Name
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestProjection(t *testing.T) {
	const token = "a-token-of-26-characters-x"
	encoded, err := verifier.New(token).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	demo := client.ObjectKey{Namespace: "chat", Name: "demo"}
	all := []openimv1.OpenIMServer{server("chat", "demo", 1), server("other", "demo", 1)}
	other := map[string][]byte{"other.demo": []byte("kept")}
	both := map[string][]byte{"other.demo": []byte("kept"), "chat.demo": encoded}
	for name, tc := range map[string]struct {
		current map[string][]byte
		tokens  []string
		want    map[string][]byte
	}{
		"a new server":                 {other, []string{token}, both},
		"nothing new":                  {both, []string{token}, both},
		"the tokens are gone":          {both, nil, other},
		"another server is gone":       {map[string][]byte{"gone.demo": nil, "other.demo": []byte("kept")}, []string{token}, both},
		"the Secret does not exist":    {nil, []string{token}, map[string][]byte{"chat.demo": encoded}},
		"an outdated verifier is gone": {map[string][]byte{"chat.demo": []byte("old"), "other.demo": []byte("kept")}, []string{token}, both},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := projection(tc.current, all, demo, tc.tokens)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	const token = "a-token-of-26-characters-x"
	chosen := server("chat", "demo", 1)
	chosen.Generation = 3
	for name, tc := range map[string]struct {
		scope scope
		// path is the callback path, ready the status of Ready, and reason that of every condition.
		path, ready, reason string
		stalled             bool
	}{
		"accepting": {
			scope{tokens: []string{token}},
			"/callbacks/chat/demo/TOKEN", "True", openimv1.ReasonAccepting, false,
		},
		"one token of several is no good: the others are in force": {
			scope{tokens: []string{token}, reason: openimv1.ReasonSecretInvalid, message: "key token-2 has fewer than 22 characters"},
			"/callbacks/chat/demo/TOKEN", "False", openimv1.ReasonSecretInvalid, true,
		},
		"no token in force: there is nowhere to send callbacks": {
			scope{reason: openimv1.ReasonSecretNotFound, message: "create it"},
			"", "False", openimv1.ReasonSecretNotFound, true,
		},
		"not the active one": {
			scope{reason: openimv1.ReasonNamespaceTaken, message: "create it elsewhere"},
			"", "False", openimv1.ReasonNamespaceTaken, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.scope.server, tc.scope.secretName = &chosen, "demo-callback-token"
			got, _ := tc.scope.status(time.Unix(9, 0))
			if got.CallbackPath != tc.path || got.ObservedGeneration != 3 || got.TokenSecretName != "demo-callback-token" {
				t.Errorf("status %+v", got)
			}
			want := map[string]string{openimv1.ConditionReady: tc.ready + " " + tc.reason}
			if tc.stalled {
				want[openimv1.ConditionStalled] = "True " + tc.reason
			}
			conditions := map[string]string{}
			for _, c := range got.Conditions {
				conditions[c.Type] = string(c.Status) + " " + c.Reason
			}
			if diff := cmp.Diff(want, conditions); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if encoded, err := json.Marshal(got); err != nil || strings.Contains(string(encoded), token) {
				t.Errorf("the token is in the status: %s (%v)", encoded, err)
			}
		})
	}
}

// A verifier that is there for no server must be looked at, whether it was there before the controller or came from its own
// belated write: nobody else will take it away.
func TestProjectionChangesEnqueueEveryKeyThatDiffers(t *testing.T) {
	secret := func(data map[string][]byte) *corev1.Secret { return &corev1.Secret{Data: data} }
	old := map[string][]byte{"a.gone": []byte("1"), "b.changed": []byte("1"), "c.same": []byte("1")}
	now := map[string][]byte{"b.changed": []byte("2"), "c.same": []byte("1"), "d.new": []byte("1"), "nodot": []byte("1")}
	handler := projectionChanges()
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	for name, tc := range map[string]struct {
		happen func(queue)
		want   []string
	}{
		"found at the start": {func(q queue) {
			handler.Create(t.Context(), event.TypedCreateEvent[*corev1.Secret]{Object: secret(old)}, q)
		}, []string{"a/gone", "b/changed", "c/same"}},
		"changed": {func(q queue) {
			handler.Update(t.Context(), event.TypedUpdateEvent[*corev1.Secret]{ObjectOld: secret(old), ObjectNew: secret(now)}, q)
		}, []string{"a/gone", "b/changed", "d/new"}},
		"deleted": {func(q queue) {
			handler.Delete(t.Context(), event.TypedDeleteEvent[*corev1.Secret]{Object: secret(old)}, q)
		}, []string{"a/gone", "b/changed", "c/same"}},
	} {
		t.Run(name, func(t *testing.T) {
			q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
			defer q.ShutDown()
			tc.happen(q)
			var got []string
			for q.Len() > 0 {
				request, _ := q.Get()
				got = append(got, request.String())
				q.Done(request)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
