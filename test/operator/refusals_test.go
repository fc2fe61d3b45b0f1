package operator_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// canary stands for what a user of OpenIM wrote. It must not come back, nor reach a log.
const canary = "canary-in-the-body"

var _ = Describe("Bad input", func() {
	DescribeTable("gets the right status, a reply that OpenIM takes for failure, and changes nothing",
		func(ctx SpecContext, status int, method, contentType, rest, body string) {
			o := newOpenIM(ctx)
			o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
			before := o.group(ctx, "G002")
			awaitReady(ctx, before)

			r := o.send(ctx, receivers[0], method, o.path(rest), contentType, strings.NewReader(body))

			Expect(r.status).To(Equal(status), "%s", *r.ErrMsg)
			Expect(r.failed()).To(BeTrue())
			Expect(*r.ErrCode).NotTo(BeZero())
			Expect(*r.ErrMsg).NotTo(BeEmpty())
			Expect(*r.ErrMsg).NotTo(ContainSubstring(canary))
			Expect(receivers[0].log()).NotTo(ContainSubstring(canary))
			Expect(cmp.Diff(before, o.group(ctx, "G002"))).To(BeEmpty())
		},
		Entry("wrong method", 405, "GET", "application/json", "/"+setGroupInfoEx, ""),
		Entry("wrong content type", 415, "POST", "text/plain", "/"+setGroupInfoEx, `{"groupID":"G002"}`),
		Entry("no content type", 415, "POST", "", "/"+setGroupInfoEx, `{"groupID":"G002"}`),
		Entry("too many path segments", 404, "POST", "application/json", "/"+setGroupInfoEx+"/more", `{"groupID":"G002"}`),
		Entry("a command that is none of OpenIM's", 404, "POST", "application/json", "/callbackWhoKnows", `{"groupID":"G002"}`),
		Entry("a command that is not served", 404, "POST", "application/json", "/callbackAfterJoinGroupCommand", `{"groupID":"G002"}`),
		Entry("no command anywhere", 400, "POST", "application/json", "", `{"groupID":"G002"}`),
		Entry("two commands in the URL", 404, "POST", "application/json", "/"+setGroupInfoEx+"?command="+setGroupInfo, `{"groupID":"G002"}`),
		Entry("another command in the body", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"callbackCommand":"callbackAfterSetGroupInfoCommand","groupID":"G002","groupName":"x"}`),
		Entry("an empty body", 400, "POST", "application/json", "/"+setGroupInfoEx, ""),
		Entry("invalid JSON", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":"`+canary),
		Entry("JSON that goes on", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002"}{"groupName":"`+canary+`"}`),
		Entry("an array", 400, "POST", "application/json", "/"+setGroupInfoEx, `["`+canary+`"]`),
		Entry("invalid UTF-8", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":"`+canary+"\xff"+`"}`),
		Entry("half a surrogate pair", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":"`+canary+`\ud800"}`),
		Entry("a key twice", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":"a","groupName":"`+canary+`"}`),
		Entry("a key in two cases", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","GROUPID":"`+canary+`"}`),
		Entry("a text where a number belongs", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","needVerification":"`+canary+`"}`),
		Entry("a number where a text belongs", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":5}`),
		Entry("a number that is too large", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","needVerification":4294967296}`),
		Entry("no groupID", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupName":"`+canary+`"}`),
		Entry("an empty groupID", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"","groupName":"`+canary+`"}`),
		Entry("a groupID that is too long", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"`+strings.Repeat("g", 1025)+`","groupName":"`+canary+`"}`),
		Entry("nesting without end", 400, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","x":`+strings.Repeat("[", 100_000)+`}`),
		Entry("a body that is too large", 413, "POST", "application/json", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":"`+strings.Repeat("n", 9<<20)+`"}`),
	)

	It("of a declared length that is too large is refused before it is sent", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+receivers[0].callbacks+o.path("/"+setGroupInfoEx), io.NopCloser(&endless{}))
		Expect(err).NotTo(HaveOccurred())
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Expect", "100-continue")
		request.ContentLength = 1 << 30
		transport := &http.Transport{ExpectContinueTimeout: 1 << 40}
		defer transport.CloseIdleConnections()
		response, err := transport.RoundTrip(request)
		Expect(err).NotTo(HaveOccurred())
		defer response.Body.Close()
		Expect(response.StatusCode).To(Equal(http.StatusRequestEntityTooLarge))
	})

	It("a value of two megabytes is accepted, left out, and recorded", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, formatted(`{"groupID":"G002","groupName":"small","notification":%q}`, strings.Repeat("n", 2<<20)))
		group := o.group(ctx, "G002")
		Expect(group.Spec.Notification).To(BeNil())
		Expect(group.Spec.Omitted).To(ConsistOf(And(HaveField("Field", "notification"), HaveField("Bytes", BeEquivalentTo(2<<20)))))
		Eventually(ctx, func() string { return kubectl(ctx, "describe", "groupinfo", "-n", o.namespace, group.Name) }).
			Should(ContainSubstring("too large to store, so absent: notification (2097152 bytes)"))
	})

	It("cannot tell an unknown OpenIMServer from a wrong token", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		body := testdata("set-ex.server.json")
		wrong := strings.Repeat("x", len(o.token))
		var replies []reply
		for what, path := range map[string]string{
			"a wrong token":         "/callbacks/" + o.namespace + "/demo/" + wrong,
			"a shorter token":       "/callbacks/" + o.namespace + "/demo/" + o.token[:20],
			"the token and more":    "/callbacks/" + o.namespace + "/demo/" + o.token + "x",
			"no token":              "/callbacks/" + o.namespace + "/demo",
			"an unknown server":     "/callbacks/" + o.namespace + "/unknown/" + o.token,
			"an unknown namespace":  "/callbacks/unknown/demo/" + o.token,
			"a hostile server name": "/callbacks/" + o.namespace + "/..%2f..%2fdemo/" + o.token,
		} {
			r := o.post(ctx, receivers[0], path+"/"+setGroupInfoEx, body)
			Expect(r.status).To(Equal(http.StatusUnauthorized), what)
			Expect(r.failed()).To(BeTrue(), what)
			replies = append(replies, r)
		}
		for _, r := range replies[1:] {
			Expect(r).To(Equal(replies[0]))
		}
		Expect(apierrors.IsNotFound(env.Client.Get(ctx, o.groupKey("G002"), &corev1.ConfigMap{}))).To(BeTrue())
		Expect(kubectl(ctx, "get", "groupinfos", "-n", o.namespace, "-o", "name")).To(BeEmpty())
	})
})

// endless never ends, and fails the spec when it is read far.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	if e.read > 64<<20 {
		return 0, fmt.Errorf("the receiver took %d bytes", e.read)
	}
	return copy(p, bytes.Repeat([]byte(" "), len(p))), nil
}

var _ = Describe("The receiver", func() {
	It("may read no tenant's Secret, and not even list what it does not need", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		kubeconfig, err := env.Kubeconfig(receiverUser)
		Expect(err).NotTo(HaveOccurred())
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		Expect(err).NotTo(HaveOccurred())
		asReceiver, err := client.New(config, client.Options{})
		Expect(err).NotTo(HaveOccurred())

		Expect(apierrors.IsForbidden(asReceiver.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "demo-callback-token"}, &corev1.Secret{}))).To(BeTrue())
		Expect(apierrors.IsForbidden(asReceiver.List(ctx, &corev1.SecretList{}, client.InNamespace(o.namespace)))).To(BeTrue())
		Expect(apierrors.IsForbidden(asReceiver.List(ctx, &corev1.SecretList{}, client.InNamespace(systemNamespace)))).To(BeTrue())
		Expect(apierrors.IsForbidden(asReceiver.List(ctx, &corev1.ConfigMapList{}, client.InNamespace(o.namespace)))).To(BeTrue())
		Expect(asReceiver.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: "groupinfo-operator-verifiers"}, &corev1.Secret{})).To(Succeed())
	})
})
