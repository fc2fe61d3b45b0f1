package operator_test

import (
	"context"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

var _ = Describe("An OpenIMServer", func() {
	statusWith := func(ctx context.Context, o *openim, token string) func() int {
		return func() int {
			r := o.post(ctx, receivers[0], "/callbacks/"+o.namespace+"/demo/"+token+"/"+setGroupInfoEx, []byte(`{"groupID":"G002","groupName":"x"}`))
			return r.status
		}
	}
	demo := func(o *openim) *openimv1.OpenIMServer {
		return &openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "demo"}}
	}

	It("shows where callbacks go, and its token nowhere but in the Secret", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		Expect(o.token).To(HaveLen(43))
		server := demo(o)
		Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(server), server)).To(Succeed())
		Expect(server.Status.CallbackPath).To(Equal("/callbacks/" + o.namespace + "/demo/TOKEN"))
		Expect(kubectl(ctx, "describe", "openimserver", "-n", o.namespace, "demo")).NotTo(ContainSubstring(o.token))

		verifiers := &corev1.Secret{}
		Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: "groupinfo-operator-verifiers"}, verifiers)).To(Succeed())
		Expect(verifiers.Data).To(HaveKey(o.namespace + ".demo"))
		for _, value := range verifiers.Data {
			Expect(string(value)).NotTo(ContainSubstring(o.token))
		}
	})

	It("lets tokens rotate without a gap", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		secret := &corev1.Secret{}
		key := client.ObjectKey{Namespace: o.namespace, Name: "demo-callback-token"}
		Expect(env.Client.Get(ctx, key, secret)).To(Succeed())
		next := strings.Repeat("next-token", 3)
		tokens = append(tokens, next)
		secret.Data["token-next"] = []byte(next + "\n")
		Expect(env.Client.Update(ctx, secret)).To(Succeed())
		Eventually(ctx, statusWith(ctx, o, next)).Should(Equal(http.StatusOK))
		Expect(statusWith(ctx, o, o.token)()).To(Equal(http.StatusOK))

		secret.Data = map[string][]byte{"token": []byte(next)}
		Expect(env.Client.Update(ctx, secret)).To(Succeed())
		Eventually(ctx, statusWith(ctx, o, o.token)).Should(Equal(http.StatusUnauthorized))
		Expect(statusWith(ctx, o, next)()).To(Equal(http.StatusOK))
	})

	It("says what is wrong with a chosen Secret, and keeps the tokens that are good", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		server := demo(o)
		change(ctx, server, func(s *openimv1.OpenIMServer) { s.Spec.Callbacks.SecretRef = openimv1.SecretReference{Name: "mine"} })
		Eventually(ctx, ready(ctx, server)).Should(Equal("False/SecretNotFound"))
		Eventually(ctx, statusWith(ctx, o, o.token)).Should(Equal(http.StatusUnauthorized))

		good := strings.Repeat("good-token", 3)
		tokens = append(tokens, good)
		mine := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "mine"}, StringData: map[string]string{"token": good, "token-bad": "too short"}}
		Expect(env.Client.Create(ctx, mine)).To(Succeed())
		Eventually(ctx, ready(ctx, server)).Should(Equal("False/SecretInvalid"))
		Expect(server.Status.Conditions).To(ContainElement(HaveField("Message", "Secret mine: key token-bad has fewer than 22 characters; tokens in force: 1")))
		Eventually(ctx, statusWith(ctx, o, good)).Should(Equal(http.StatusOK))

		delete(mine.Data, "token-bad")
		mine.Data = map[string][]byte{"token": []byte(good)}
		Expect(env.Client.Update(ctx, mine)).To(Succeed())
		awaitReady(ctx, server)
	})

	It("waits for the older one of its namespace, and takes over when that is gone", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
		second := &openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "second"}}
		Expect(env.Client.Create(ctx, second)).To(Succeed())
		Eventually(ctx, ready(ctx, second)).Should(Equal("False/NamespaceTaken"))
		Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "second-callback-token"}, &corev1.Secret{})).To(Satisfy(apierrors.IsNotFound))

		Expect(env.Client.Delete(ctx, demo(o))).To(Succeed())
		awaitReady(ctx, second)
		Eventually(ctx, statusWith(ctx, o, o.token)).Should(Equal(http.StatusUnauthorized))

		group := o.group(ctx, "G002")
		Eventually(ctx, ready(ctx, group)).Should(Equal("Unknown/ServerMissing"))
		By("having its token Secret garbage collected")
		Eventually(ctx, func() error {
			return env.Client.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: "demo-callback-token"}, &corev1.Secret{})
		}).Should(Satisfy(apierrors.IsNotFound))
	})

	It("is not accepted any more when it was deleted while the controller was away", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		controller.stop(ctx)
		Expect(env.Client.Delete(ctx, demo(o))).To(Succeed())
		Expect(statusWith(ctx, o, o.token)()).To(Equal(http.StatusOK), "nobody has told the receivers")
		controller.restart(ctx)
		Eventually(ctx, statusWith(ctx, o, o.token)).Should(Equal(http.StatusUnauthorized))
	})

	It("gets its verifier back when somebody takes it away", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		key := client.ObjectKey{Namespace: systemNamespace, Name: "groupinfo-operator-verifiers"}
		verifiers := &corev1.Secret{}
		Expect(env.Client.Get(ctx, key, verifiers)).To(Succeed())
		Expect(env.Client.Delete(ctx, verifiers)).To(Succeed())
		Eventually(ctx, func() (map[string][]byte, error) {
			verifiers := &corev1.Secret{}
			err := env.Client.Get(ctx, key, verifiers)
			return verifiers.Data, client.IgnoreNotFound(err)
		}).Should(HaveKey(o.namespace + ".demo"))
		Eventually(ctx, statusWith(ctx, o, o.token)).Should(Equal(http.StatusOK))
	})

	It("does not take over a Secret that it did not create", func(ctx SpecContext) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "chat-"}}
		Expect(env.Client.Create(ctx, namespace)).To(Succeed())
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "demo-callback-token"}, StringData: map[string]string{"token": strings.Repeat("planted-token", 3)}}
		Expect(env.Client.Create(ctx, secret)).To(Succeed())
		server := &openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "demo"}}
		Expect(env.Client.Create(ctx, server)).To(Succeed())
		Eventually(ctx, ready(ctx, server)).Should(Equal("False/SecretConflict"))
	})

	DescribeTable("is refused by the API server when", func(ctx SpecContext, name, message string) {
		server := &openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		Expect(env.Client.Create(ctx, server)).To(MatchError(ContainSubstring(message)))
	},
		Entry("its name has a dot", "a.b", "DNS label"),
		Entry("its name is too long", strings.Repeat("a", 64), "DNS label"),
	)
})
