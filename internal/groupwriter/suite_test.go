package groupwriter_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/groupinfo-operator/groupinfo-operator/internal/testenv"
)

var env *testenv.Environment

func TestGroupWriter(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "groupwriter")
}

var _ = BeforeSuite(func() {
	var err error
	env, err = testenv.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(env.Stop()).To(Succeed()) })
})
