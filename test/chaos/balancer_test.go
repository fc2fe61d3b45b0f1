package chaos_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const (
	// balancerLag is how far a balancer's idea of who is ready is behind: the kubelet probes, the API server tells the nodes,
	// and each node changes its rules.
	balancerLag = time.Second

	// balancerPoll is how often it looks.
	balancerPoll = 100 * time.Millisecond
)

// balancer spreads connections over receivers as a Kubernetes Service does: by connection, and without knowing of HTTP. A
// connection stays with its receiver, and one to a receiver that is gone fails.
type balancer struct {
	address  string
	backends []*backend
	next     atomic.Uint64
}

type backend struct {
	*replica
	ready atomic.Bool
}

// balance starts a balancer in front of the replicas, and waits until it sends to all of them. It ends with the spec.
func balance(ctx context.Context, replicas ...*replica) *balancer {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(listener.Close)
	b := &balancer{address: listener.Addr().String()}
	for _, r := range replicas {
		backend := &backend{replica: r}
		b.backends = append(b.backends, backend)
		go backend.watch(ctx)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go b.serve(conn)
		}
	}()
	Eventually(ctx, func() int { return len(b.ready()) }).Should(Equal(len(replicas)))
	return b
}

// watch keeps up, with the lag, whether the receiver is ready.
func (b *backend) watch(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	poll := time.NewTicker(balancerPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		ready := probe(ctx, client, b.probes) == http.StatusOK
		time.AfterFunc(balancerLag, func() { b.ready.Store(ready) })
	}
}

func (b *balancer) ready() (ready []*backend) {
	for _, backend := range b.backends {
		if backend.ready.Load() {
			ready = append(ready, backend)
		}
	}
	return ready
}

// serve passes on what comes on a connection until both sides have closed it.
func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	candidates := b.ready()
	if len(candidates) == 0 {
		candidates = b.backends
	}
	server, err := net.Dial("tcp", candidates[b.next.Add(1)%uint64(len(candidates))].callbacks)
	if err != nil {
		return
	}
	defer server.Close()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		splice(client, server)
	}()
	splice(server, client)
	<-answered
}

// splice copies until the source ends, and passes the end on. A reset or a failure ends both directions.
func splice(to, from net.Conn) {
	_, err := io.Copy(to, from)
	half, ok := to.(*net.TCPConn)
	if err != nil || !ok || half.CloseWrite() != nil {
		_ = to.Close()
		_ = from.Close()
	}
}
