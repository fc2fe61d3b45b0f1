package operator_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
)

const (
	setGroupInfo   = "callbackAfterSetGroupInfoCommand"
	setGroupInfoEx = "callbackAfterSetGroupInfoExCommand"
)

// openim plays an OpenIM server whose OpenIMServer object is "demo" in a namespace of its own.
type openim struct {
	namespace string
	token     string
}

// tokens are those of all OpenIM servers so far.
var tokens []string

// newOpenIM creates the namespace and the OpenIMServer, and waits until every receiver accepts its callbacks.
func newOpenIM(ctx context.Context) *openim {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "chat-"}}
	Expect(env.Client.Create(ctx, namespace)).To(Succeed())
	server := &openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "demo"}}
	Expect(env.Client.Create(ctx, server)).To(Succeed())
	awaitReady(ctx, server)
	secret := &corev1.Secret{}
	Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: namespace.Name, Name: "demo-callback-token"}, secret)).To(Succeed())
	o := &openim{namespace: namespace.Name, token: string(secret.Data["token"])}
	tokens = append(tokens, o.token)
	for _, receiver := range receivers {
		o.awaitAccepted(ctx, receiver)
	}
	return o
}

// awaitAccepted waits until the receiver knows the token. A body that is no JSON tells: only a verified sender learns so.
func (o *openim) awaitAccepted(ctx context.Context, receiver *process) {
	GinkgoHelper()
	Eventually(ctx, func(ctx context.Context) int {
		return o.post(ctx, receiver, o.path("/"+setGroupInfoEx), []byte("no JSON")).status
	}).Should(Equal(http.StatusBadRequest))
}

// path returns the URL path as webhooks.yml has it, followed by the rest.
func (o *openim) path(rest string) string {
	return "/callbacks/" + o.namespace + "/demo/" + o.token + rest
}

// reply is an answer as OpenIM's client reads it.
type reply struct {
	status                        int
	ActionCode, ErrCode, NextCode *int
	ErrMsg, ErrDlt                *string
	// stamp is the accepted change's.
	stamp string
}

// failed is what OpenIM's client takes for failure.
func (r reply) failed() bool { return *r.ActionCode == 0 && *r.NextCode == 1 }

// post sends a callback as OpenIM does.
func (o *openim) post(ctx context.Context, receiver *process, path string, body []byte) reply {
	GinkgoHelper()
	r := o.send(ctx, receiver, http.MethodPost, path, "application/json; charset=utf-8", bytes.NewReader(body))
	if r.stamp != "" {
		o.awaitApplied(ctx, body, r.stamp)
	}
	return r
}

// awaitApplied waits until the accepted callback is in its group's history: the reply waits for the journal alone.
func (o *openim) awaitApplied(ctx context.Context, body []byte, stamp string) {
	GinkgoHelper()
	var names struct {
		GroupID         string
		GroupInfoForSet struct{ GroupID string }
	}
	Expect(json.Unmarshal(body, &names)).To(Succeed())
	key := o.groupKey(cmp.Or(names.GroupID, names.GroupInfoForSet.GroupID))
	Eventually(ctx, func() ([]openimv1.HistoryEntry, error) {
		object := &openimv1.GroupInfo{}
		err := env.Client.Get(ctx, key, object)
		return object.History, client.IgnoreNotFound(err)
	}).Should(ContainElement(HaveField("Stamp", stamp)))
}

func (o *openim) send(ctx context.Context, receiver *process, method, path, contentType string, body io.Reader) reply {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+receiver.callbacks+path, body)
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Operationid", "an-operation")
	response, err := http.DefaultClient.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	Expect(response.Header.Get("Content-Type")).To(Equal("application/json; charset=utf-8"))
	r := reply{status: response.StatusCode, stamp: response.Header.Get("Groupinfo-Stamp")}
	Expect(json.Unmarshal(answer, &r)).To(Succeed(), "%s", answer)
	for what, member := range map[string]any{"actionCode": r.ActionCode, "errCode": r.ErrCode, "nextCode": r.NextCode, "errMsg": r.ErrMsg, "errDlt": r.ErrDlt} {
		Expect(member).NotTo(BeNil(), "the reply has no %s: %s", what, answer)
	}
	return r
}

// tell sends a callback to the first receiver and expects it to be accepted.
func (o *openim) tell(ctx context.Context, command string, body []byte) {
	GinkgoHelper()
	r := o.post(ctx, receivers[0], o.path("/"+command), body)
	Expect(r.status).To(Equal(http.StatusOK), "%s", *r.ErrMsg)
	Expect(*r.ErrCode).To(BeZero())
	Expect(r.failed()).To(BeFalse())
}

// groupKey returns the key of the group's object.
func (o *openim) groupKey(groupID string) client.ObjectKey {
	return client.ObjectKey{Namespace: o.namespace, Name: naming.Namer{}.GroupInfo(groupID)}
}

// group reads the group's object.
func (o *openim) group(ctx context.Context, groupID string) *openimv1.GroupInfo {
	GinkgoHelper()
	object := &openimv1.GroupInfo{}
	Expect(env.Client.Get(ctx, o.groupKey(groupID), object)).To(Succeed())
	return object
}

// mirror creates a GroupSync with a ConfigMap target.
func (o *openim) mirror(ctx context.Context, name string, format openimv1.ConfigMapFormat, change ...func(*openimv1.GroupSync)) *openimv1.GroupSync {
	GinkgoHelper()
	sync := &openimv1.GroupSync{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: name},
		Spec:       openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{ConfigMap: &openimv1.ConfigMapTarget{Format: format}}},
	}
	for _, c := range change {
		c(sync)
	}
	Expect(env.Client.Create(ctx, sync)).To(Succeed())
	return sync
}

// change edits an object as a person does, who tries again when the operator wrote to it in between.
func change[T client.Object](ctx context.Context, object T, edit func(T), options ...client.UpdateOption) {
	GinkgoHelper()
	Expect(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := env.Client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		edit(object)
		return env.Client.Update(ctx, object, options...)
	})).To(Succeed())
}

// conditionsOf returns the conditions of an object.
func conditionsOf(object client.Object) []metav1.Condition {
	switch typed := object.(type) {
	case *openimv1.GroupInfo:
		return typed.Status.Conditions
	case *openimv1.GroupSync:
		return typed.Status.Conditions
	case *openimv1.OpenIMServer:
		return typed.Status.Conditions
	}
	Fail("no conditions")
	return nil
}

// ready returns "<status>/<reason>" of the Ready condition for the current generation.
func ready(ctx context.Context, object client.Object) func() (string, error) {
	return func() (string, error) {
		if err := env.Client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return "", err
		}
		c := meta.FindStatusCondition(conditionsOf(object), openimv1.ConditionReady)
		if c == nil || c.ObservedGeneration != object.GetGeneration() {
			return "", nil
		}
		return string(c.Status) + "/" + c.Reason, nil
	}
}

func awaitReady(ctx context.Context, object client.Object) {
	GinkgoHelper()
	Eventually(ctx, ready(ctx, object)).Should(HavePrefix("True/"))
}

func freeAddress() string {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	return listener.Addr().String()
}

func commandOf(path string, args ...string) *exec.Cmd { return exec.Command(path, args...) }

func get(ctx context.Context, url string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func scrape(ctx context.Context, p *process) string {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/metrics", nil)
	Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	var text strings.Builder
	_, err = io.Copy(&text, response.Body)
	Expect(err).NotTo(HaveOccurred())
	return text.String()
}
